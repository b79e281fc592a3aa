"""The figures of a run: medians with their spread, ratios to the peers, and the page that holds them."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import peers

_OURS = "pacs"


@dataclass
class Figures:
    """Rates a second, by (what, associations) and peer; several of each."""

    instances: int
    rounds: int
    rates: dict[tuple[str, int], dict[str, list[float]]] = field(default_factory=dict)

    def add(self, what: str, associations: int, peer: str, rate: float) -> None:
        """Note a rate [1/s], and show it."""
        self.rates.setdefault((what, associations), {}).setdefault(peer, []).append(rate)
        print(f"bench: {what}, {associations} association(s), {peer}: {rate:.0f}/s", flush=True)

    def table(self) -> str:
        """All of it as a Markdown table: median (lowest to highest), and how many times the peer's rate ours is."""
        names = list(dict.fromkeys(name for by_peer in self.rates.values() for name in by_peer))
        others = [name for name in names if name != _OURS]
        lines = [
            "| what | associations | " + " | ".join(f"{name} [1/s]" for name in names)
            + "".join(f" | ours ÷ {name}" for name in others) + " |",
            "|---|---|" + "---|" * (len(names) + len(others)),
        ]  # fmt: skip
        for (what, associations), by_peer in self.rates.items():
            cells = [_spread(by_peer.get(name, [])) for name in names]
            cells += [_ratio(by_peer.get(_OURS, []), by_peer.get(name, [])) for name in others]
            lines.append(f"| {what} | {associations} | " + " | ".join(cells) + " |")
        return "\n".join(lines)


def _spread(rates: list[float]) -> str:
    if not rates:
        return "–"
    return f"{statistics.median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f})"


def _ratio(ours: list[float], theirs: list[float]) -> str:
    if not ours or not theirs:
        return "–"
    # The least and the most that the rounds allow, beside the ratio of the medians.
    least, most = min(ours) / max(theirs), max(ours) / min(theirs)
    return f"**{statistics.median(ours) / statistics.median(theirs):.2f}** ({least:.2f} to {most:.2f})"


def write(path: Path, figures: Figures) -> None:
    """Put the table of `make bench` and what it was measured on into the page."""
    put(path, "make bench", f"{_machine(figures)}\n\n{figures.table()}")


def put(path: Path, mark: str, text: str) -> None:
    """Put text between a page's two marks of a name."""
    begin, end = f"<!-- begin: {mark} -->", f"<!-- end: {mark} -->"
    before, found, rest = path.read_text("utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found and found_end):
        raise RuntimeError(f"{path} has lost its marks {begin} and {end}")
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", "utf-8")


def machine() -> str:
    """What was measured on, in words."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory_gib = int(Path("/proc/meminfo").read_text().split()[1]) / (1 << 20)
    cores = len(os.sched_getaffinity(0))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    return (
        f"Commit {commit.strip()}. Machine: {model}, {cores} cores, {memory_gib:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}."
    )


def _machine(figures: Figures) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in peers.versions(peers.debian_root()).items())
    return (
        f"{figures.instances} CT instances of 526 kB in 8 studies, {figures.rounds} rounds. {machine()} "
        f"Peers: {packages}."
    )
