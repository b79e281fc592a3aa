"""`pacs raid create|status|add|replace|remove|compare|note`: software RAIDs, on bare metal and of raw disks.

Runs as root, and needs nothing of the service's libraries, as the rest of what deals with the machine.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from pacs.machine import raid as raids
from pacs.machine import raid_notes
from pacs.machine import storage as volumes
from pacs.model.restore_progress import format_duration
from pacs.model.sizes import format_size
from pacs.storage import arrays
from pacs.storage.arrays import Array

raid = typer.Typer(help="Software RAIDs (mdadm).", no_args_is_help=True, pretty_exceptions_enable=False)

Name = Annotated[str, typer.Argument(help="An array's name: `pacs raid status` shows them.")]
Device = Annotated[str, typer.Argument(help="A disk: /dev/sdd.")]


@raid.command()
def create(
    name: Annotated[str, typer.Argument(help="A name for it: small letters, digits and hyphens.")],
    disks: Annotated[list[str], typer.Argument(help="Blank disks: /dev/sdb /dev/sdc …")],
    level: Annotated[str, typer.Option(help="1, 5, 6 or 10.")],
    spares: Annotated[int, typer.Option(help="So many of the disks, the last ones, wait for another to fail.")] = 0,
) -> None:
    """Make an array of blank disks. A disk that is not blank is refused."""
    device, notes = raids.create(volumes.Places(), name, level, disks, spares)
    _note()
    for each in notes:
        typer.echo(each)
    typer.echo(
        f"{device} is there, and may be used while its disks are made equal behind it (`pacs raid status`). On a "
        f"machine without volumes: `pacs machine claim {device}`. Else: `pacs machine add-disk {device} NAME`."
    )


@raid.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show each array: is it whole, how far is a rebuild, and which disk is which."""
    noted = {each["device"]: each for each in _note()}
    found = arrays.arrays()
    if as_json:
        shown = [{**_plain(each), **noted[each.device], "left_s": each.left_s} for each in found]
        typer.echo(json.dumps(shown))
        return
    if not found:
        typer.echo("There is no software RAID.")
    for array in found:
        for line in lines(array, noted[array.device]):
            typer.echo(line)


def _plain(array: Array) -> dict[str, Any]:
    return {**asdict(array), "members": [{**asdict(each), "words": sorted(each.words)} for each in array.members]}


def lines(array: Array, noted: dict[str, Any]) -> list[str]:
    """An array for a person: a line of its own, and one for each disk and each empty place."""
    level = array.level.removeprefix("raid")
    head = f"{noted['name'] or array.device}  /dev/{array.device}  RAID {level} of {array.disks} disks"
    found = [f"{head}, {format_size(array.size_bytes)}: {_state(array)}"]
    taken = {str(each.slot) for each in array.members if each.slot is not None}
    for member in sorted(array.members, key=lambda each: (each.slot is None, each.slot or 0, each.disk)):
        known = noted["places"].get(str(member.slot), {})
        facts = known if known.get("disk") == member.disk else raids.disk_facts(member.disk)
        place = "spare" if member.is_spare else "-" if member.slot is None else str(member.slot)
        found.append(f"  {place:>5}  /dev/{member.disk:8} {_words(member):12} {_label(facts)}")
    for slot in range(array.disks):
        if str(slot) not in taken:
            last = noted["places"].get(str(slot))
            found.append(f"  {slot:>5}  missing; last there: {_label(last) if last else 'not known'}")
    return found


def _state(array: Array) -> str:
    if not array.runs:
        return f"does not run ({array.state})"
    parts = [f"{array.missing} MISSING, {array.may_fail} more may fail" if array.missing else "whole"]
    if array.doing != "idle":
        left = f", {format_duration(array.left_s)} left" if array.left_s else ""
        at = f" {array.percent:.1f} %" if array.percent is not None else ""
        parts.append(f"{array.doing}{at}{left}")
    if array.mismatches:
        parts.append(f"{array.mismatches} sectors did not fit together when last compared")
    return "; ".join(parts)


def _words(member: arrays.Member) -> str:
    if member.has_failed:
        return "FAILED"
    if "in_sync" in member.words:
        return "being copied" if "want_replacement" in member.words else "in use"
    return "waits" if member.slot is None else "being rebuilt"


def _label(facts: dict[str, Any]) -> str:
    serial = f"serial number {facts['serial'] or 'unknown'}"
    return ", ".join(filter(None, (serial, facts["model"], format_size(facts["size_bytes"]), facts["place"])))


@raid.command()
def add(name: Name, disk: Device) -> None:
    """Give an array a blank disk: for one that is missing, or as a spare."""
    typer.echo(raids.add(volumes.Places(), raids.find(name), disk))
    _note()


@raid.command()
def replace(name: Name, old: Device, new: Device) -> None:
    """Copy a disk that still works onto a new one, and let that take its place."""
    raids.replace(volumes.Places(), raids.find(name), old, new)
    _note()
    typer.echo(f"{old} is being copied; it counts as failed when that is done. Then: `pacs raid remove {name} {old}`.")


@raid.command()
def remove(
    name: Name,
    disk: Device,
    fail: Annotated[bool, typer.Option("--fail", help="Though it is in use, and nothing has taken its place.")] = False,
) -> None:
    """Take a disk out of an array: one that has failed, or a spare."""
    raids.remove(raids.find(name), disk, fail)
    _note()
    typer.echo(f"{disk} is out of the array, and may be pulled.")


@raid.command()
def compare(name: Name) -> None:
    """Compare all disks of an array with each other now, as is done once a month."""
    raids.compare(raids.find(name))
    _note()
    typer.echo("It goes on behind all else: `pacs raid status`.")


@raid.command(hidden=True)
def note() -> None:
    """Write down which disk is in which place; called when something changes."""
    _note()


def _note() -> list[dict[str, Any]]:
    places = volumes.Places()
    answer = volumes.read_answer(places)
    state: Path | None = places.state if answer is not None and answer.ready else None
    return raid_notes.note(state)
