"""Asking databases, for all kinds of plugins: which URLs, which statements, and connections that write nothing."""
