"""Benchmarks: `python -m tests.bench NAME`. Each measures the engine and a baseline alternately, in one call."""
