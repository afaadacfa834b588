"""The crash harness: a real engine as a process, fed from all sources, killed, restarted, and added up.

`python -m tests.crash` runs it whole; `tests/test_crash.py` runs a sample of it. Time here is the machine's
own, as the engine under test is another process. Linux only.
"""
