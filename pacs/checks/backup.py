"""Has each repository a backup of the database that counts, and is it of last night?"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pacs import clock
from pacs.backup.log_shipping import ShippedLog
from pacs.backup.log_spool import LogSpool
from pacs.backup.repositories import Repository, repositories
from pacs.backup.running import LATE
from pacs.checks.check import ORDER, Result, Severity, Subject
from pacs.index.volumes import REPOSITORY_TIER


def run(subject: Subject) -> Result:
    """Look at the last backup to each repository, and whether there is a repository at all."""
    known = repositories(subject.settings.data)
    if not known:
        return Result(
            "backup", "warning", "there is no backup: no repository is named",
            "Name one: `pacs backup repository add` (docs/operate/backup.md).",
        )  # fmt: skip
    found = [_of(subject, each) for each in known]
    severity: Severity = max((each[0] for each in found), key=ORDER.index)
    hints = list(dict.fromkeys(hint for _severity, _message, hint in found if hint))
    return Result("backup", severity, "; ".join(message for _severity, message, _hint in found), " ".join(hints))


def _of(subject: Subject, repository: Repository) -> tuple[Severity, str, str]:
    name = repository.name
    state = ShippedLog(LogSpool(subject.settings.data), name).read()
    if state.backup_error:
        return "critical", f"{name}: the last one failed: {state.backup_error}", f"Now: `pacs backup run {name}`."
    if state.backup_at is None or state.label is None:
        return "warning", f"{name}: none yet", f"It comes by itself; now: `pacs backup run {name}`."
    age = clock.now() - datetime.fromisoformat(state.backup_at)
    if age > LATE:
        return "critical", f"{name}: the last one is {age.days} days old", "See `systemctl status pacs-backup`."
    if state.damaged:
        return (
            "critical", f"{name}: pages of the database had wrong checksums when they were read",
            "Look at the state's disk. Restore an earlier point (docs/operate/restore.md), or `pacs index rebuild`.",
        )  # fmt: skip
    if is_on_own_disk(subject, repository):
        return (
            "warning", f"{name}: {age.total_seconds() / 3600:.0f} hours old, on a disk of this appliance",
            "It does not outlive the appliance. Name a place on another machine.",
        )  # fmt: skip
    return "ok", f"{name}: {age.total_seconds() / 3600:.0f} hours old", ""


def is_on_own_disk(subject: Subject, repository: Repository) -> bool:
    """Whether a repository lies on a volume of the archive's own."""
    return repository.kind == "local" and any(
        Path(repository.place).is_relative_to(row.location)
        for row in subject.volumes.rows
        if row.kind == "local" and row.tier < REPOSITORY_TIER
    )
