"""Backups of the database's cluster: made, listed, verified, expired. pgBackRest does it; this says when and how.

A backup counts when pgBackRest has said so: it has then read back from the repository that the log of its time is
there. A full one stands alone; an incremental one needs those before it, up to the last full one.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pacs import clock
from pacs.backup.pgbackrest import (
    FOLDER,
    STANZA,
    PgBackRest,
    Progress,
    config_file,
    configuration,
    identity_folder,
    percent_of,
    write_configuration,
)
from pacs.backup.repositories import Repository
from pacs.errors import BackupError, SettingsError
from pacs.index.server import server_place
from pacs.settings import load
from pacs.storage import durable
from pacs.storage.keyring import Keyring

log = logging.getLogger(__name__)

Kind = Literal["full", "incr"]
#: A backup is a full one when the last full one is older than this: a week, less what a timer's delay may be.
FULL_EVERY = timedelta(days=6, hours=12)

#: How long a backup may say nothing [s]: a file of the cluster has 1 GB at most, the log is waited for 5 minutes.
SILENCE_S = 3600.0
#: What pgBackRest says when its newest backup is of a time that is yet to come.
_NOT_LATER = "is not later than latest backup label"


@dataclass(frozen=True)
class Label:
    """A backup in a repository. Its label is pgBackRest's; sizes are of the cluster, and what this one added."""

    label: str
    kind: str
    started_at: datetime
    finished_at: datetime
    size_bytes: int
    added_bytes: int
    #: First and last segment of the log that it cannot do without.
    first_segment: str
    last_segment: str
    #: Where in the log it is whole from.
    lsn: str
    #: Whether pages of the cluster had wrong checksums when they were read.
    damaged: bool = False
    #: Labels that it needs, itself not among them.
    needs: tuple[str, ...] = ()


def write_config(data: Path, repositories: list[Repository], keyring: Keyring) -> None:
    """Write pgBackRest's configuration of each repository, and remove those of others. Needs the database."""
    settings = load(data)
    server = server_place(settings.conninfo)
    runtime = settings.runtime_folder / "pgbackrest"
    for repository in repositories:
        path = config_file(data, repository.name)
        try:
            write_configuration(path, configuration(repository, keyring, runtime, server, path.parent))
        except SettingsError as error:  # the others get theirs
            log.error("repository %s: %s", repository.name, error)
            path.unlink(missing_ok=True)
    kept = {config_file(data, repository.name) for repository in repositories}
    for path in config_file(data, "any").parent.glob("*"):
        if path.is_file() and path.with_suffix(".conf") not in kept:
            path.unlink()


def require_config(data: Path, repository: Repository, keyring: Keyring) -> None:
    """Raise SettingsError if pgBackRest cannot be told of the repository: write_config has only logged it."""
    path = config_file(data, repository.name)
    if not path.exists():
        configuration(repository, keyring, path.parent, None, path.parent)


def backups(data: Path, name: str) -> list[Label]:
    """The backups of a repository, oldest first; none if there is none yet. Raise BackupError if it is not there."""
    return labels_of(PgBackRest(config_file(data, name)))


def labels_of(tool: PgBackRest) -> list[Label]:
    """The same, with a configuration of any kind."""
    text = tool.run("info", "--output=json", "--log-level-console=error")
    try:
        stanzas = json.loads(text[text.index("[") :])
    except ValueError as error:
        raise BackupError(f"pgBackRest's list of backups cannot be read: {text[:200]}") from error
    for stanza in stanzas:
        status = stanza["status"]
        # 0: well; 1, 2, 3: nothing is there yet. Else the repository cannot be read.
        if status["code"] not in (0, 1, 2, 3):
            broken = next((each["status"] for each in stanza.get("repo", []) if each["status"]["code"] > 3), status)
            raise BackupError(f"pgBackRest: {broken['message']}.")
    return [_label(each) for stanza in stanzas for each in stanza.get("backup", []) if each["archive"]["stop"]]


def _label(found: dict[str, Any]) -> Label:
    info = found["info"]
    return Label(
        label=found["label"],
        kind=found["type"],
        started_at=datetime.fromtimestamp(found["timestamp"]["start"], UTC),
        finished_at=datetime.fromtimestamp(found["timestamp"]["stop"], UTC),
        size_bytes=info["size"],
        added_bytes=info["repository"]["delta"],
        first_segment=found["archive"]["start"],
        last_segment=found["archive"]["stop"],
        lsn=found["lsn"]["stop"],
        damaged=bool(found.get("error")),
        needs=tuple(found.get("reference") or ()),
    )


def due_kind(known: list[Label]) -> Kind:
    """Whether the next backup is a full one."""
    full = [each for each in known if each.kind == "full"]
    return "incr" if full and timedelta(0) <= clock.now() - full[-1].finished_at < FULL_EVERY else "full"


def prepare(data: Path, name: str) -> None:
    """Have a repository ready for this cluster's backups and log. Raise BackupError."""
    _keep_identity(data)
    tool = PgBackRest(config_file(data, name))
    try:
        tool.run("stanza-create", "--log-level-console=error")
    except BackupError as error:
        # Another cluster wrote there: one of an older PostgreSQL, or one that was lost. Its backups stay.
        try:
            tool.run("stanza-upgrade", "--log-level-console=error")
        except BackupError:
            raise error from None


def mend_copied(repository: Repository) -> None:
    """Remove the folder `latest` that a copier of the repository made of pgBackRest's link: it wants to make it anew.

    What is in it is the newest backup once more, which is beside it under its own name.
    """
    if repository.folder is None:
        return
    latest = repository.folder / FOLDER / "backup" / STANZA / "latest"
    if latest.is_dir() and not latest.is_symlink():
        log.warning("the repository's %s was a folder: a copy of the newest backup, which is there yet", latest.name)
        shutil.rmtree(latest)


def _keep_identity(data: Path) -> None:
    """Put aside what says whose log it is, for the worker who may not read the cluster's files."""
    source = server_place(load(data).conninfo).data_directory / "global" / "pg_control"
    target = identity_folder(data) / "global" / "pg_control"
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    before = b""
    while (content := source.read_bytes()) != before:  # it is written over, in place, at each checkpoint
        before = content
    durable.replace_file(target, content, 0o600)


def backup(data: Path, name: str, kind: Kind | None = None, progress: Progress | None = None) -> Label:
    """Back the cluster up to a repository, and let go of what has expired there; return the new backup.

    kind: None is a full one when one is due. The repository is prepared, and its log must be shipped
    meanwhile (log_shipping.Shipper).
    Raise BackupError; then what was there counts as before.
    """
    tool = PgBackRest(config_file(data, name))
    before = labels_of(tool)
    try:
        _back_up(tool, kind or due_kind(before), progress)
    except BackupError as error:
        if _NOT_LATER not in str(error):
            raise
        _back_up_behind(tool, before, progress)
    made = labels_of(tool)
    if not made:
        raise BackupError(f"pgBackRest made a backup and {name} does not have it. Look at the repository.")
    return made[-1]


def _back_up(tool: PgBackRest, kind: Kind, progress: Progress | None) -> None:
    words = ["backup", f"--type={kind}", "--log-level-console=detail"]
    tool.watch(words, percent_of("backup", progress), silence_s=SILENCE_S)


def _back_up_behind(tool: PgBackRest, before: list[Label], progress: Progress | None) -> None:
    """Make a full backup behind an incremental one of a time that is yet to come: a clock was wrong, and is right now.

    Behind a full one of such a time pgBackRest makes none: raise BackupError that says what to do.
    """
    log.warning("the repository has a backup of a time that is yet to come: a clock was wrong; a full one is made")
    try:
        _back_up(tool, "full", progress)
    except BackupError as error:
        if _NOT_LATER not in str(error):
            raise
        newest = max(each.finished_at for each in before)
        raise BackupError(
            f"The newest backup in the repository is of {newest:%Y-%m-%d}: a clock was wrong, and until then none "
            "can be made behind it. If the clock is right now, add a repository at another place (`pacs backup "
            "repository add`), and keep this one until that has a backup."
        ) from None
