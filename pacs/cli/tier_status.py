"""What `pacs tier status` shows: a bar a volume, what moves next and why, what is on its way back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pacs.archive import tiering
from pacs.archive.tiering import Planned, TierStatus, VolumeStatus
from pacs.cli.instance import Instance
from pacs.index.recalls import list_recalls
from pacs.index.runs import newest_run

_NEXT = 3
_RECALLS = 10
_BAR_WIDTH = 30


def status_json(instance: Instance) -> dict[str, Any]:
    """All of it as values."""
    planned = tiering.plan(instance.database, instance.volumes, instance.settings, studies_max=100)
    last = newest_run(instance.database, "tier")
    return {
        "tiers": [
            {
                "tier": each.tier,
                "used_percent": None if each.fill is None else round(each.fill.full_percent, 1),
                "leaving_bytes": 0 if each.fill is None else each.fill.leaving_bytes,
                "volumes": [asdict(volume) for volume in each.volumes],
            }
            for each in tiering.status(instance.database, instance.volumes, instance.settings)
        ],
        "rules": [
            {
                "name": each.rule.name,
                "words": each.rule.words,
                "is_due": each.look.is_due,
                "why": each.look.why,
                "next": [asdict(move) for move in each.moves[:_NEXT]],
                "size_bytes": each.size_bytes,
                "is_more": each.is_more,
            }
            for each in planned
        ],
        "recalls": list_recalls(instance.database, _RECALLS),
        "last_pass": None if last is None else {"finished_at": last["finished_at"], **last["result"]},
    }


def print_status(instance: Instance) -> None:
    """The same for a person."""
    console = Console()
    for each in tiering.status(instance.database, instance.volumes, instance.settings):
        console.print(_tier(each))
    for planned in tiering.plan(instance.database, instance.volumes, instance.settings, studies_max=100):
        console.print(_rule(planned))
    last = newest_run(instance.database, "tier")
    if last is not None:
        result = last["result"]
        console.print(
            Text(
                f"last moved {last['finished_at'].astimezone():%Y-%m-%d %H:%M}: {result['studies']} studies, "
                f"{result['objects']} objects, {result['size_bytes'] / 1e9:.2f} GB; {result['failed']} failed"
            )
        )
        for error in result.get("errors", ()):
            console.print(Text(f"  {error}"))
    recalls = list_recalls(instance.database, _RECALLS)
    if recalls:
        console.print(_recalls(recalls))


def _tier(status: TierStatus) -> Group:
    head = f"tier {status.tier}"
    if status.fill is not None and status.fill.free_bytes is not None:
        head += f": {status.fill.full_percent:.0f} % full"
        if status.fill.leaving_bytes:
            head += f", {status.fill.percent:.0f} % when {status.fill.leaving_bytes / 1e9:.2f} GB have left"
    table = Table.grid(padding=(0, 2))
    for volume in status.volumes:
        table.add_row(
            Text(f"  {volume.name}"), _bar(volume), Text(_how_full(volume)), Text(_holds(volume)), Text(volume.problem)
        )
    return Group(Text(head), table)


def _bar(volume: VolumeStatus) -> ProgressBar | Text:
    if volume.room is None or volume.room.free_bytes is None:
        return Text("-" * _BAR_WIDTH)
    return ProgressBar(total=100, completed=volume.room.used_percent, width=_BAR_WIDTH)


def _how_full(volume: VolumeStatus) -> str:
    if volume.room is None:
        return "not here"
    if volume.room.free_bytes is None:
        return f"{volume.room.used_bytes / 1e9:.1f} GB, no bound"
    total = volume.room.used_bytes + volume.room.free_bytes
    return f"{volume.room.used_percent:.0f} % of {total / 1e9:.1f} GB"


def _holds(volume: VolumeStatus) -> str:
    words = f"{volume.holds.objects} objects, {volume.holds.size_bytes / 1e9:.2f} GB"
    if volume.holds.leaving_objects:
        words += f"; {volume.holds.leaving_objects} leave"
    if volume.state == "draining":
        words += "; draining" if not volume.holds.is_empty else "; drained: `pacs volume retire`"
    return words


def _rule(planned: Planned) -> Group:
    parts = [Text(f"rule {planned.rule.name}: {planned.look.why}")]
    if planned.look.is_due and not planned.moves:
        parts.append(Text("  no study is like that"))
    elif planned.look.is_due:
        more = "+" if planned.is_more else ""
        parts.append(Text(f"  {len(planned.moves)}{more} studies, {planned.size_bytes / 1e9:.2f} GB to move; next:"))
        parts += [
            Text(f"  {move.study_instance_uid}  {move.size_bytes / 1e6:.1f} MB  {move.why}")
            for move in planned.moves[:_NEXT]
        ]
    return Group(*parts)


def _recalls(recalls: list[dict[str, Any]]) -> Table:
    table = Table("recalled study", "why", "state", "objects", "MB", "asked", "", box=None, pad_edge=False)
    for row in recalls:
        asked = f"{row['requested_at'].astimezone():%Y-%m-%d %H:%M}"
        words = (row["study_instance_uid"], row["why"], row["state"], str(row["objects"]))
        table.add_row(*map(Text, (*words, f"{row['size_bytes'] / 1e6:.1f}", asked, row["last_error"])))
    return table
