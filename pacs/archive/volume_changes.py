"""Volumes added, drained and retired by a person: looked at first, then into the journal, then into the index.

add      the folder is looked at → its identity file → probed → journal → row
drain    journal → state; the worker moves what is there elsewhere (pacs/archive/drain.py)
retire   journal → state, which the index refuses while a copy is there or on its way → a note on the volume
"""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

from pacs import clock
from pacs.archive.known_volumes import open_known
from pacs.archive.volume_places import (
    Given,
    forget_secrets,
    kept_secrets,
    place_of,
    require_own_place,
    wanted_volume,
)
from pacs.archive.volumes import Volumes
from pacs.errors import ForeignVolume, PacsError, UsageError, VolumeError
from pacs.index import restores
from pacs.index import volumes as rows
from pacs.index.database import Database
from pacs.index.volumes import REPOSITORY_TIER, STANDBY_TIER, Holdings, KnownVolume
from pacs.storage.journal import Journal
from pacs.storage.probing import Finding, probe
from pacs.storage.volume import appliance_ids, read_identity

log = logging.getLogger(__name__)

RETIRED_NOTE = "retired.json"


@dataclass(frozen=True)
class Added:
    """A volume that was added; what was seen of it, and what is to be known about it."""

    volume: KnownVolume
    findings: list[Finding]
    notes: list[str]


class VolumeChanges:
    """Changes the volumes of one instance."""

    def __init__(self, database: Database, journal: Journal, data: Path, volumes: Volumes) -> None:
        self.database, self.journal, self.data, self.volumes = database, journal, data, volumes
        self.appliance_id = read_identity(data).appliance_id

    def add(
        self, name: str, location: str, tier: int, on_system_disk: bool = False, given: Given | None = None
    ) -> Added:
        """Add a folder, share or bucket as a volume of a tier. Raise UsageError or VolumeError with the reason why it
        cannot be one.

        on_system_disk: take a folder whose file system is that of the system, or of no type that is known to keep its
        promises; for development and tests.
        """
        given = replace(given or Given(), on_system_disk=on_system_disk)
        wanted, mount = wanted_volume(name, location, tier, given)
        with rows.adding(self.database) as connection:
            known = rows.list_volumes(self.database, with_retired=True)
            notes = require_own_place(self.data, wanted, known, mount, on_system_disk)
            with kept_secrets(self.data, wanted, given):
                wanted, is_new = self._identified(wanted, known)
                findings = self._probed(wanted, is_new)
            self.journal.append("volume add", **_journalled(wanted))
            rows.insert_volume(connection, wanted)
        if not is_new:
            notes.append("It was a volume of this appliance already. `pacs reconcile run` indexes what is on it.")
        self.volumes.refresh()
        return Added(wanted, findings, notes)

    def drain(self, name: str) -> Holdings:
        """Place nothing more on a volume, and have what is there moved elsewhere. Return what is there."""
        volume = self._own(name)
        others = [
            each
            for each in rows.list_volumes(self.database)
            if each.tier == volume.tier and each.state == "active" and each.volume_id != volume.volume_id
        ]
        if volume.tier == 1 and not others:
            raise UsageError(
                f"{name} is the only volume in service in tier 1: nothing could be received. Add another first: "
                "`pacs volume add`."
            )
        return self._change(volume, "draining", "volume drain")

    def undrain(self, name: str) -> Holdings:
        """Take a volume that was to be emptied into service again."""
        return self._change(self._own(name), "active", "volume undrain")

    def set_scrub_days(self, name: str, days: float | None) -> KnownVolume:
        """Say how soon every copy on a volume is read again [days]; None: as the settings say."""
        volume = self._own(name)
        with rows.changing(self.database, volume.volume_id) as (connection, now):
            _require_in_use(now)
            if now.scrub_days != days:
                self.journal.append("volume set", volume_id=now.volume_id, name=now.name, scrub_days=days)
                rows.set_scrub_days(connection, now.volume_id, days)
        self.volumes.refresh()
        return replace(now, scrub_days=days)

    def _own(self, name: str) -> KnownVolume:
        """A volume that a person may change in this way. Raise NotFound, or UsageError for a repository."""
        volume = rows.volume_named(self.database, name)
        if volume.tier == STANDBY_TIER:
            raise UsageError(f"{name} is the standby's. `pacs standby --help` has what can be done.")
        if volume.tier == REPOSITORY_TIER:
            raise UsageError(f"{name} is a backup repository. `pacs backup repository --help` has what can be done.")
        return volume

    def _change(self, volume: KnownVolume, state: rows.State, what: str) -> Holdings:
        with rows.changing(self.database, volume.volume_id) as (connection, now):
            _require_in_use(now)
            if now.state != state:
                self.journal.append(what, volume_id=now.volume_id, name=now.name)
                rows.set_state(connection, now.volume_id, state)
            found = rows.holdings(connection, now.volume_id)
        self.volumes.refresh()
        return found

    def retire(self, name: str, leave_copies: bool = False) -> Holdings:
        """Give a volume up: it is no longer looked for. Return what was left there.

        Raise UsageError while something is left; with leave_copies only while an object has no good copy elsewhere,
        in a repository neither. What is in a repository only comes back from there.
        """
        volume = self._own(name)
        here = self.volumes.by_id.get(volume.volume_id)
        with rows.changing(self.database, volume.volume_id) as (connection, now):
            _require_in_use(now)
            if now.state != "draining":
                raise UsageError(f"{name} is in service. Empty it first: `pacs volume drain {name}`.")
            left = rows.holdings(connection, now.volume_id, lock=True)
            _require_not_needed(name, left, leave_copies)
            self.journal.append("volume retire", volume_id=now.volume_id, name=now.name, copies_left=left.copies)
            rows.forget_copies(connection, now.volume_id)
            if left.copies:  # what is in a repository only is given from there, and comes back
                restores.begin_bulk(connection, str(uuid.uuid4()), "the repositories", f"volume {name}", clock.now())
            rows.set_state(connection, now.volume_id, "retired")
        if here is not None:
            note = {"retired": clock.now().isoformat(timespec="seconds"), "name": name, "copies_left": left.copies}
            try:
                here.replace_small(RETIRED_NOTE, (json.dumps(note, indent=1) + "\n").encode())
            except PacsError as error:
                log.warning("no note that it is retired could be left on volume %s: %s", name, error)
        forget_secrets(self.data, volume)
        self.volumes.refresh()
        return left

    def _identified(self, wanted: KnownVolume, known: list[KnownVolume]) -> tuple[KnownVolume, bool]:
        """The volume with its id, and whether it is new: its identity file is made if its folder is empty."""
        folder, place = wanted.location, place_of(self.data, wanted)
        found = place.identity()
        is_new = found is None
        if found is None:
            found = place.make(wanted.role, self.appliance_id)
        elif found.appliance_id not in appliance_ids(self.data):
            raise ForeignVolume(
                f"{folder} is a volume of appliance {found.appliance_id}, this is {self.appliance_id}. Nothing was "
                "touched. Attach it to its own appliance, or empty its file system first."
            )
        same = next((each for each in known if each.volume_id == found.volume_id), None)
        if same is not None:
            state = "retired" if same.state == "retired" else "in use"
            raise UsageError(
                f"{folder} is volume {same.name}, which is {state}. To use its disk anew, make a new file system on it."
            )
        if wanted.role not in found.roles:
            raise UsageError(f"{folder} is a volume of {', '.join(found.roles)}. Give --tier as it says.")
        return replace(wanted, volume_id=found.volume_id), is_new

    def _probed(self, wanted: KnownVolume, is_new: bool) -> list[Finding]:
        try:
            opened = open_known(self.data, self.appliance_id, wanted)
            findings = probe(opened, is_new)
            opened.close()
            if bad := [each for each in findings if not each.is_well]:
                reasons = "; ".join(f"{each.what}: {each.seen}" for each in bad)
                raise VolumeError(f"{wanted.location} does not do what a volume must: {reasons}")
        except PacsError:
            if is_new:  # it is left as it was found
                place_of(self.data, wanted).unmake()
            raise
        return findings


def _require_in_use(volume: KnownVolume) -> None:
    if volume.state == "retired":
        raise UsageError(f"Volume {volume.name} is retired. `pacs volume list --all` shows it.")


def _require_not_needed(name: str, left: Holdings, leave_copies: bool) -> None:
    if left.nowhere_else or (left.only_here and not leave_copies):
        raise UsageError(
            f"{left.nowhere_else or left.only_here} objects have no good copy but on {name}. Let it drain; "
            f"`pacs volume show {name}` tells how much is left."
        )
    if left.copies and not leave_copies:
        raise UsageError(
            f"{left.copies} copies are left on {name}, each of an object that has another. Let it drain, or give "
            "--leave-copies to give them up."
        )


def _journalled(volume: KnownVolume) -> dict[str, object]:
    return {
        "volume_id": volume.volume_id, "name": volume.name, "tier": volume.tier, "kind": volume.kind,
        "location": volume.location, "options": dict(volume.options),
    }  # fmt: skip
