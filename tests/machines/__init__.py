"""Rule-based state machines: random events, clocks, restarts and crashes, against slow and obvious models.

Each machine drives a small engine of real organs, step by step, beside a model that knows nothing of how they work;
after each step both have to agree. Hypothesis shrinks what leads to a difference to the shortest way.
"""
