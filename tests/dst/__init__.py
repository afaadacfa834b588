"""Deterministic simulation: the whole engine lives through a week in a second, with crashes and faults, by a seed.

What runs is the runtime with all its organs; only what it stands on is exchanged: the event loop (whose time passes
when nothing is left to do), the clock, the ids, the disk below the store, and the plugins at both ends. The same seed
does the same, turn by turn. `python -m tests.dst --help` tells the rest; docs/decisions/0042 why it is so.
"""
