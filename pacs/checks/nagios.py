"""The checks as a plug-in's output for Nagios, Icinga, Naemon and Checkmk's MRPE.

After the Monitoring Plugins' guidelines: one line of status, figures behind a bar, then a line a check; the exit code
says how it is. Bars are what sets figures apart, so none is in a text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pacs.checks.check import Figure, Result, worst

#: A unit at a name's end → Nagios' sign for it.
_UNITS = {"percent": "%", "seconds": "s", "bytes": "B"}
EXIT_CODES = {"ok": 0, "warning": 1, "critical": 2, "unknown": 3}


def render(results: Sequence[Result]) -> str:
    """The whole output; more than one check gets a line each behind the first."""
    state, bad = worst(list(results)), [each for each in results if each.severity != "ok"]
    if len(results) == 1:
        said = f"{results[0].name}: {results[0].message}"
    elif bad:
        said = "; ".join(f"{each.name}: {each.message}" for each in bad)
    else:
        said = f"{len(results)} checks are well"
    figures = " ".join(_perfdata(each.name, figure) for each in results for figure in each.figures)
    lines = [f"PACS {state.upper()} - {_plain(said)}" + (f" | {figures}" if figures else "")]
    if len(results) > 1 or bad:
        lines += [_plain(f"{each.severity.upper()} {each.name}: {each.message}{_advice(each)}") for each in results]
    return "\n".join(lines) + "\n"


def _advice(result: Result) -> str:
    return "" if result.severity == "ok" else f" -> {result.hint} See {result.page}"


def _perfdata(check: str, figure: Figure) -> str:
    """'label'=value[unit];warning;critical: a limit below which it is bad is written `N:`."""
    unit = _UNITS.get(figure.name.rpartition("_")[2], "")
    limits = [_number(each) for each in (figure.warning, figure.critical)]
    is_low = figure.warning is not None and figure.critical is not None and figure.critical < figure.warning
    words = ";".join(f"{each}:" if each and is_low else each for each in limits).rstrip(";")
    label = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{check}_{figure.name}")
    return f"'{label}'={_number(figure.value)}{unit}" + (f";{words}" if words else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _plain(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
