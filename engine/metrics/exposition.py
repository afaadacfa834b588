"""Writing figures as Prometheus reads them: its text format, or OpenMetrics where that is asked for."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.registry import Collector

from engine.metrics.catalogue import Family, Kind
from engine.metrics.figures import Histogram

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"

GZIP_LEVEL = 1
"""Metrics are mostly repetition: the first level takes nine tenths away."""

SMALLEST_ZIPPED = 1_400
"""What fits into one packet is sent as it is."""

Labels = tuple[str, ...]
Figures = Mapping[str, Mapping[Labels, float | Histogram]]
"""By the names of the families and the values of their labels. Nobody may change them any more."""


class Exposed(Struct, frozen=True, kw_only=True):
    """What is sent."""

    body: bytes
    headers: dict[str, str]


class _Read(Collector):
    """Gives a registry figures that were read."""

    def __init__(self, families: tuple[Family, ...], figures: Figures) -> None:
        self._families = families
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = _metric(family)
            for labels, figure in self._figures.get(family.name, {}).items():
                _add(metric, labels, figure)
            if metric.samples:
                yield metric


def expose(
    families: tuple[Family, ...], figures: Figures, *, accept: str = "", accept_encoding: str = ""
) -> Exposed:  # fmt: skip
    """Write figures down, in the form and the coding that are asked for. Takes its time: not for the event loop."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Read(families, figures))
    if os.path.isdir("/proc/self"):
        ProcessCollector(registry=registry)
    encode, kind = choose_encoder(OPEN_METRICS if _asks_for_open_metrics(accept) else "")
    body = encode(registry)
    headers = {"Content-Type": kind, "Vary": "Accept, Accept-Encoding"}
    if len(body) >= SMALLEST_ZIPPED and gzip_accepted(accept_encoding):
        body = gzip.compress(body, GZIP_LEVEL, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Exposed(body=body, headers=headers)


def _asks_for_open_metrics(accept: str) -> bool:
    # What else stands there is of no use to us: the library would raise on a version that is none.
    for part in accept.lower().split(","):
        kind, _, parameters = part.partition(";")
        if kind.strip() == "application/openmetrics-text":
            return "q=0" not in [parameter.strip() for parameter in parameters.split(";")]
    return False


def _metric(family: Family) -> Any:
    if family.kind is Kind.COUNTER:
        return CounterMetricFamily(family.name.removesuffix("_total"), family.says, labels=family.labels)
    if family.kind is Kind.GAUGE:
        return GaugeMetricFamily(family.name, family.says, labels=family.labels)
    if family.kind is Kind.HISTOGRAM:
        return HistogramMetricFamily(family.name, family.says, labels=family.labels)
    return UnknownMetricFamily(family.name, family.says, labels=family.labels)


def _add(metric: Any, labels: Labels, figure: float | Histogram) -> None:
    if not isinstance(figure, Histogram):
        metric.add_metric(labels, figure)
        return
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*figure.bounds, float("inf")), figure.counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), total))
    metric.add_metric(labels, buckets, figure.total)
