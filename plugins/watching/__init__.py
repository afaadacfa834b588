"""Directories into which others write: hints of changes, safe opening, writers, names. For sources of files."""
