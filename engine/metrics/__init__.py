"""Metrics: what the engine counts while it works, and how Prometheus reads it.

Whoever works adds to an integer, or to a place found by bisection (`figures`, `counts`); everything else is read from
what the rooms know anyway, when somebody asks. `catalogue` names the families, `exposition` writes them.
"""

from engine.metrics.catalogue import ALIASES as ALIASES
from engine.metrics.catalogue import FAMILIES as FAMILIES
from engine.metrics.catalogue import Family as Family
from engine.metrics.catalogue import Kind as Kind
from engine.metrics.counts import Counts as Counts
from engine.metrics.counts import Names as Names
from engine.metrics.figures import Histogram as Histogram
