"""A durable trigger engine: on this, when that, run this; and a reason for everything that did or did not happen."""
