"""Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from pacs.model.histogram import Histogram

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class Metric(NamedTuple):
    """A metric and its samples: labels → value."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    samples: Sequence[tuple[Mapping[str, str], float]]


class Histograms(NamedTuple):
    """A metric of histograms: labels → what was counted."""

    name: str
    help: str
    samples: Sequence[tuple[Mapping[str, str], Histogram]]


def render(metrics: Iterable[Metric | Histograms]) -> str:
    """Metrics as text. Those without a sample are left out."""
    lines: list[str] = []
    for metric in metrics:
        if not metric.samples:
            continue
        kind = metric.kind if isinstance(metric, Metric) else "histogram"
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {kind}"]
        if isinstance(metric, Metric):
            lines += [_line(metric.name, labels, value) for labels, value in metric.samples]
        else:
            lines += [line for labels, each in metric.samples for line in _histogram(metric.name, labels, each)]
    return "".join(f"{line}\n" for line in lines)


def _histogram(name: str, labels: Mapping[str, str], counted: Histogram) -> Iterator[str]:
    *below, count = counted.cumulative
    for bound, number in zip(counted.bounds, below, strict=True):
        yield _line(f"{name}_bucket", {**labels, "le": f"{bound:.15g}"}, number)
    yield _line(f"{name}_bucket", {**labels, "le": "+Inf"}, count)
    yield _line(f"{name}_sum", labels, counted.total)
    yield _line(f"{name}_count", labels, count)


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    words = ",".join(f'{key}="{text.translate(_ESCAPES)}"' for key, text in labels.items())
    return f"{name}{{{words}}} {value:.15g}" if words else f"{name} {value:.15g}"
