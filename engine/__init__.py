"""A durable trigger engine: on this, when that, run this; and a reason for all that did or did not happen."""
