"""A support bundle: what whoever helps must know of an appliance, and nothing about a patient.

One gzipped tar of a few files. Three kinds of things are in it: figures and states that this program makes itself;
names of our own (units, tables, settings); and text, every piece of which goes through one `Redactor`. No file, row or
object is copied into it. A part that cannot be had is named with the reason, and the others are made all the same: who
asks for a bundle has something that does not work.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pacs import __version__, clock
from pacs.backup.log_shipping import ShippedLog
from pacs.backup.log_spool import LogSpool
from pacs.backup.repositories import repositories
from pacs.backup.shipping import lag_of
from pacs.checks.check import Result, Subject
from pacs.errors import PacsError
from pacs.index.database import Database
from pacs.index.runs import newest_run, newest_success, totals
from pacs.index.sizes import server_facts, table_sizes
from pacs.machine.commands import MachineError
from pacs.machine.facts import disks, mounted, versions
from pacs.machine.journal import recent_lines, unit_states
from pacs.machine.vocabulary import vocabulary
from pacs.model.redaction import Redactor
from pacs.settings import Settings
from pacs.storage.kinds import Volume
from pacs.storage.lineage import LineageFiles
from pacs.storage.volume import read_identity

LINES_MAX, DAYS = 5000, 7
RUNS = ("backup", "drill", "log gap", "rebuild", "reconcile", "repair", "reverted", "scrub", "selftest", "ship", "tier")
#: Settings whose texts are one of a few words of ours. Of any other text only whether it is set is said.
_WORDS = frozenset({"tls_client_certificate", "user_identity"})


@dataclass(frozen=True)
class Node:
    """What there is to look at: the instance's settings, and its subject unless the instance could not be opened."""

    settings: Settings
    checks: list[Result]
    subject: Subject | None


def make_bundle(node: Node) -> bytes:
    """The bundle, a gzipped tar."""
    redactor = Redactor(vocabulary(), clock.now())
    missing: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for name, gather in _parts(node, redactor).items():
        try:
            found = gather()
        except (PacsError, OSError) as error:
            missing[name] = redactor.text(f"{type(error).__name__}: {error}")
        except Exception as error:  # a part must not take the others down; its text may quote anything
            missing[name] = type(error).__name__
        else:
            files[name] = found.encode("ascii", "replace") if isinstance(found, str) else _json(found)
    files["about.json"] = _json({**_about(node), "parts": sorted(files), "missing": missing})
    return _archive(files, clock.now())


def _parts(node: Node, redactor: Redactor) -> Mapping[str, Callable[[], Any]]:
    settings = node.settings
    parts: dict[str, Callable[[], Any]] = {
        "checks.json": lambda: [_check(each, redactor) for each in node.checks],
        "versions.json": versions,
        "settings.json": lambda: _settings(settings),
        "units.json": lambda: redactor.value(unit_states()),
        "journal.txt": lambda: _journal(redactor),
        "mounts.json": lambda: mounted(redactor),
        "disks.json": lambda: redactor.value(disks()),
        "lineage.json": lambda: _lineage(settings.data, redactor),
        "repositories.json": lambda: _repositories(settings.data, node.subject, redactor),
    }
    if node.subject is not None:
        subject = node.subject
        parts |= {
            "database.json": lambda: _database(subject.database),
            "runs.json": lambda: _runs(subject.database, redactor),
            "volumes.json": lambda: _volumes(subject, redactor),
        }
    return parts


def _about(node: Node) -> dict[str, Any]:
    try:
        appliance_id = read_identity(node.settings.data).appliance_id
    except PacsError:
        appliance_id = None
    return {
        "format": 1,
        "made_at": clock.now().isoformat(timespec="seconds"),
        "version": __version__,
        "appliance_id": appliance_id,
        "is_database_here": node.subject is not None,
        "words": "[x:...] stands for a word that is not known to be harmless: the same one in all of this bundle.",
    }


def _check(result: Result, redactor: Redactor) -> dict[str, str]:
    said = {"message": redactor.text(result.message), "hint": redactor.text(result.hint)}
    return {"name": result.name, "severity": result.severity, **said}


def _settings(settings: Settings) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if value is None or isinstance(value, bool | int | float) or name in _WORDS:
            shown[name] = value
        else:
            shown[name] = "the default" if not field.is_required() and value == field.default else "set"
    return shown


def _journal(redactor: Redactor) -> str:
    return "".join(
        f"{line.at:%Y-%m-%dT%H:%M:%S.%fZ} {line.level} {line.unit or '-'}: "
        + redactor.text(line.message).replace("\n", " ")
        + "\n"
        for line in recent_lines(LINES_MAX, DAYS)
    )


def _lineage(data: Path, redactor: Redactor) -> dict[str, Any]:
    files = LineageFiles(data)
    state, notice = files.state(), files.reverted()
    return {
        "epoch": state.mark.epoch if state else None,
        "generation": state.mark.generation if state else None,
        "fenced": redactor.value(files.fenced()),
        "reverted": None if notice is None else redactor.value({"at": notice.noticed_at, "found": notice.findings}),
    }


def _database(database: Database) -> dict[str, Any]:
    return {"server": server_facts(database), "tables": table_sizes(database), "totals": totals(database)}


def _runs(database: Database, redactor: Redactor) -> dict[str, Any]:
    return {
        kind: {"newest": redactor.value(newest_run(database, kind)), "newest_success": _when(database, kind)}
        for kind in RUNS
    }


def _when(database: Database, kind: str) -> str | None:
    found = newest_success(database, kind)
    return None if found is None else found["finished_at"].isoformat()


def _volumes(subject: Subject, redactor: Redactor) -> list[dict[str, Any]]:
    found = []
    for row in subject.volumes.rows:
        reason = subject.volumes.absent.get(row.volume_id)
        shown = {"name": redactor.text(row.name), "tier": row.tier, "kind": row.kind, "state": row.state}
        shown |= {"location": redactor.text(row.location), "absent": redactor.value(reason)}
        found.append({**shown, **_room(subject.volumes.by_id.get(row.volume_id))})
    return found


def _room(volume: Volume | None) -> dict[str, Any]:
    if volume is None:
        return {}
    try:
        room = volume.room()
    except PacsError as error:
        return {"room": type(error).__name__}
    return {"size_bytes": room.size_bytes, "used_bytes": room.used_bytes, "free_bytes": room.free_bytes}


def _repositories(data: Path, subject: Subject | None, redactor: Redactor) -> list[dict[str, Any]]:
    found = []
    for each in repositories(data):
        state = ShippedLog(LogSpool(data), each.name).read()
        shown: dict[str, Any] = {
            "name": redactor.text(each.name), "kind": each.kind, "has_windows": bool(each.windows),
            "bandwidth_bytes_per_s": each.bandwidth_bytes_per_s, "keep_full": each.keep_full,
            "log": {
                "ready": state.ready, "waits": len(state.pushed), "last_pushed_at": state.last_pushed_at,
                "failed_since": state.failed_since, "gap_since": state.gap_since, "gaps": state.gaps,
                "damaged": state.damaged, "point_at": state.point_at, "backup_at": state.backup_at,
                "error": redactor.value(state.error), "backup_error": redactor.value(state.backup_error),
            },
        }  # fmt: skip
        if subject is not None:
            lag = lag_of(subject.database, each.volume_id)
            shown["objects"] = {"wait": lag.objects, "oldest_s": lag.oldest_s, "absent_s": lag.absent_s}
        found.append(shown)
    return found


def _json(found: Any) -> bytes:
    return (json.dumps(found, indent=1, default=_plain) + "\n").encode("ascii")


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise MachineError(f"A support bundle holds no {type(value).__name__}. Tell us.")


def _archive(files: Mapping[str, bytes], made_at: datetime) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(f"pacs-support/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(made_at.timestamp()), 0o640
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
