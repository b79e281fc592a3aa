"""When was the last backup that counts?"""

from __future__ import annotations

from datetime import timedelta

from pacs import clock
from pacs.checks.check import Result, Subject
from pacs.index.runs import newest_run

LATE = timedelta(hours=26)


def run(subject: Subject) -> Result:
    """Look at the last run of the backup, and whether there is a repository at all."""
    repository = subject.settings.backup_repository
    if repository is None:
        return Result(
            "backup", "warning", "there is no backup: no repository is set",
            "Mount one and set backup_repository in config/pacs.toml (docs/operate/backup.md).",
        )  # fmt: skip
    last = newest_run(subject.database, "backup")
    if last is None:
        return Result("backup", "warning", "never ran", "It runs every night; now: `pacs backup run`.")
    if not last["succeeded"]:
        return Result("backup", "critical", f"the last one failed: {last['result'].get('error')}", "`pacs backup run`")
    age = clock.now() - last["finished_at"]
    if age > LATE:
        return Result("backup", "critical", f"the last one is {age} old", "See `systemctl status pacs-backup`.")
    on_own_disk = any(repository.is_relative_to(row.location) for row in subject.volumes.rows if row.kind == "local")
    hours = age.total_seconds() / 3600
    if on_own_disk:
        return Result(
            "backup", "warning", f"{hours:.0f} hours old, on a disk of this appliance",
            "It does not outlive the appliance. Set backup_repository to another machine's.",
        )  # fmt: skip
    return Result("backup", "ok", f"{hours:.0f} hours old")
