"""What is done about marks that do not fit: this node is fenced, or what went back in time is noted; said in the log.

Before the database is started the marks on disks are looked at without it, early in the boot; what is on shares and in
buckets the worker looks at.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from pacs import clock
from pacs.model.lineage import Finding, State, judge
from pacs.storage.lineage import LineageFiles, Reverted, read_mark_at
from pacs.storage.volume import IDENTITY_FILE, read_identity

log = logging.getLogger(__name__)


def act_on(files: LineageFiles, findings: Iterable[Finding]) -> None:
    """Fence this node, or note what went back in time; say so in the log."""
    findings = list(findings)
    notice = files.reverted()
    for each in findings:
        if each.kind == "higher epoch" and (files.fenced() is None or files.is_paused()):
            log.critical("this node is fenced and takes no associations: %s", each.message)
            files.fence(each.message, each.epoch)
    new = [each for each in findings if each.kind != "higher epoch"]
    said = set(notice.found) if notice is not None and not notice.reconciled_at else set()
    new = [each for each in new if _name(each) not in said]
    if not new:
        return
    for each in new:
        log.critical("something went back in time: %s", each.message)
    is_state = any(each.kind == "beyond the state" or each.place == "the database" for each in new)
    if notice is None or notice.reconciled_at:
        notice = Reverted(clock.now().isoformat(timespec="seconds"), [])
    notice.findings += [each.message for each in new]
    notice.found += [_name(each) for each in new]
    notice.is_state = notice.is_state or is_state
    notice.timeline_elsewhere = max(notice.timeline_elsewhere, *(each.timeline for each in new))
    files.put_reverted(notice)


def _name(finding: Finding) -> str:
    return f"{finding.kind}: {finding.place}"


def look_before_start(data: Path, roots: Iterable[Path]) -> Reverted | None:
    """Look at the marks of volumes on disks, before the database is started. Return what went back in time, if any did.

    roots: where the settings say that tiers are; others are where the state knows them. Raise VolumeError.
    """
    files = LineageFiles(data)
    state = files.state()
    places = {
        key: Path(place.location) for key, place in (state.places if state else {}).items() if place.kind == "local"
    }
    here: dict[str, tuple[str, Path]] = {}
    for root in (*roots, *places.values()):
        if (root / IDENTITY_FILE).exists():
            identity = read_identity(root)
            known = state.places.get(identity.volume_id) if state else None
            here.setdefault(identity.volume_id, (f"volume {known.name if known else identity.roles[0]}", root))
    marks = {key: (name, read_mark_at(root)) for key, (name, root) in here.items()}
    if state is None:
        newest = max((mark for _name, mark in marks.values() if mark), key=lambda mark: mark.generation, default=None)
        if newest is None or not (data / "postgresql").exists():
            return files.reverted()  # a new one, or one from before there were marks
        state = State(newest.lineage_id, newest.epoch)
        files.put_state(state)
    findings = [each for key, (name, mark) in marks.items() if (each := judge(state, key, name, mark)) is not None]
    act_on(files, findings)
    return files.reverted()


def note_claim(files: LineageFiles) -> None:
    """A fenced node is claimed: it may be one that was put back, so all is looked at as if it were."""
    why = files.fenced()
    if why is not None:
        act_on(files, [Finding("beyond the state", "claimed", f"it was fenced and claimed: {why}")])
