"""Requests that plugins send: guarded targets, bounded answers, masked secrets. For plugins of every kind."""
