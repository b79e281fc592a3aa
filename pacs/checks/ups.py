"""Is there power, and is the battery good for a clean shutdown? From NUT (upsc), where the setting `ups` names one."""

from __future__ import annotations

from pacs.checks.asking import ask
from pacs.checks.check import ORDER, Figure, Ground, Result, Severity


def run(ground: Ground) -> Result:
    """Ask each UPS that the settings name."""
    if not ground.settings.ups:
        return Result("ups", "ok", "none is named")
    found = [_of(name) for name in ground.settings.ups]
    severity = max((each[0] for each in found), key=ORDER.index)
    hint = "" if severity == "ok" else f"Look at the power and the battery: `upsc {ground.settings.ups[0]}`."
    figures = tuple(figure for each in found for figure in each[2])
    return Result("ups", severity, "; ".join(each[1] for each in found), hint, figures)


def _of(name: str) -> tuple[Severity, str, list[Figure]]:
    answer = ask("upsc", name)
    if answer is None:
        return "critical", f"{name}: NUT is not installed (nut-client)", []
    succeeded, said = answer
    if not succeeded:
        return "critical", f"{name} does not answer: {said.removeprefix('Error: ') or 'it said nothing'}", []
    return judged(name, dict(line.split(": ", 1) for line in said.splitlines() if ": " in line))


def judged(name: str, values: dict[str, str]) -> tuple[Severity, str, list[Figure]]:
    """What is to be said of a UPS by its variables (NUT's names); `ups.status` is a list of words: OL, OB, LB, RB …"""
    status = values.get("ups.status", "").split()
    low = _number(values, "battery.charge.low")
    figures, said = [], [name]
    for variable, figure, words in (
        ("battery.charge", "charge_percent", "{:.0f} % charged"),
        ("battery.runtime", "runtime_seconds", "{:.0f} s of power"),
        ("ups.load", "load_percent", "{:.0f} % load"),
    ):
        number = _number(values, variable)
        if number is not None:
            figures.append(
                Figure(f"{name.partition('@')[0]}_{figure}", number, None, low if "charge" in figure else None)
            )
            said.append(words.format(number))
    line = ", ".join(said)
    charge = _number(values, "battery.charge")
    if "LB" in status or (charge is not None and low is not None and "OB" in status and charge <= low):
        return "critical", f"{line}: the battery is low, and the machine shuts down", figures
    if "OB" in status:
        return "critical", f"{line}: no power, it runs on the battery", figures
    if "RB" in status:
        return "warning", f"{line}: the battery is to be replaced", figures
    if "OVER" in status or "BYPASS" in status:
        return (
            "warning",
            f"{line}: {'overloaded' if 'OVER' in status else 'on bypass, nothing guards the machine'}",
            figures,
        )
    if "OL" not in status:
        return "warning", f"{line}: it does not say that it has power ({' '.join(status) or 'no status'})", figures
    return "ok", f"{line}: has power", figures


def _number(values: dict[str, str], name: str) -> float | None:
    try:
        return float(values[name])
    except (KeyError, ValueError):
        return None
