"""Polls of a database.

`source` is the plugin: its settings, checked. `statement` reads the query as far as its forms need it. `values` and
`rows` turn what a database says into plain JSON, and `walk` (by a cursor) and `comparison` (by hashes) decide what is
an event: they are pure. `connecting` and `reading` ask the database, and `polling` connects all of it.
"""
