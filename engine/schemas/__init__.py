"""Schemas: what an event's data has to look like, by JSON Schema 2020-12 (https://json-schema.org/draft/2020-12).

`compiled` makes a schema ready once, and refuses one that is wrong, that refers to anything outside of itself, or
that could take long on data that somebody sends; the schema then tells what is wrong with data, and where.
"""

from engine.schemas.compiled import DIALECT, LARGEST_BYTES, Schema, Violation, compiled

__all__ = ["DIALECT", "LARGEST_BYTES", "Schema", "Violation", "compiled"]
