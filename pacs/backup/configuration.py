"""Configuration, identity and journal in a repository, as restic's snapshots.

Everything below config/ but the keys of the repositories, which every repository holds sealed itself; identity/ (host
keys, TLS), journal/ and volume.json. Not receipts, which are made again. A snapshot is whole or not there; owners and
modes come back as numbers, which are the same on every appliance. Who reads writes nothing there, not even a
lock: a restore is made from what can only be read, too.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pacs import clock
from pacs.backup.repositories import Repository
from pacs.backup.sftp_login import write_login
from pacs.errors import BackupError, NotFound, RestoreError, SettingsError
from pacs.storage.keyring import Keyring
from pacs.storage.s3_client import read_credentials, split_location

#: Below a repository.
FOLDER = "restic"
#: Of the state volume, what a snapshot holds.
PARTS = ("volume.json", "config", "identity", "journal")
#: Made again, or of this machine only.
EXCLUDED = ("config/keys", "config/pgbackrest", "config/restore-unfinished")
#: How many are kept: of the last days, weeks, months, years.
KEPT = ("--keep-last", "3", "--keep-daily", "14", "--keep-weekly", "8", "--keep-monthly", "24", "--keep-yearly", "10")
_HOST = "pacs"
#: How long restic may take [s]: the configuration is small. What reads all of it may take longer.
TIMEOUT_S, READ_TIMEOUT_S = 2 * 3600.0, 24 * 3600.0


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of the configuration."""

    snapshot_id: str
    at: datetime


class Configuration:
    """The configuration's snapshots in one repository."""

    def __init__(self, repository: Repository, keyring: Keyring, folder: Path) -> None:
        """folder: for files that restic wants, keys of logins."""
        self.repository = repository
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RESTIC_", "AWS_"))},
            "RESTIC_REPOSITORY": "",
            "RESTIC_PASSWORD": keyring.restic_password,
            **_secrets(repository),
        }
        self._words = ["--no-cache", "--json", *_certificate(repository)]
        if repository.kind == "sftp":
            login = write_login(repository, folder)
            self._environment["RESTIC_REPOSITORY"] = f"sftp:{login.user}@{login.host}:{login.path}/{FOLDER}"
            self._words += ["-o", f"sftp.command={login.command}"]
        else:
            self._environment["RESTIC_REPOSITORY"] = _place(repository)

    def back_up(self, data: Path) -> Snapshot:
        """Make a snapshot of the instance in `data`, and let go of what has expired. Raise BackupError."""
        parts = [name for name in PARTS if (data / name).exists()]
        words = ["backup", f"--host={_HOST}", *(f"--exclude={data / name}" for name in EXCLUDED), *parts]
        try:
            said = self._run(*words, folder=data)
        except BackupError as error:
            self._prepare(error)
            said = self._run(*words, folder=data)
        made = json.loads(said.strip().splitlines()[-1])
        self._run("forget", f"--host={_HOST}", "--group-by=host", *KEPT, "--prune")
        return Snapshot(made["snapshot_id"][:8], clock.now())

    def snapshots(self) -> list[Snapshot]:
        """Those that are there, oldest first. Raise BackupError if the repository cannot be read."""
        found = json.loads(self._run("snapshots", "--no-lock", f"--host={_HOST}") or "[]") or []
        return sorted(
            (Snapshot(each["short_id"], _time(each["time"])) for each in found), key=lambda snapshot: snapshot.at
        )

    def restore(self, target: Path, snapshot_id: str | None = None, parts: Sequence[str] = PARTS) -> Snapshot:
        """Write a snapshot's parts into `target`, over what is there; the newest if none is named. Return it.

        As root, with owners and modes; else as whoever we are. Each file is compared with what was backed up.
        Raise NotFound or RestoreError.
        """
        known = self.snapshots()
        chosen = next((each for each in reversed(known) if snapshot_id in (None, each.snapshot_id)), None)
        if chosen is None:
            raise NotFound(
                f"Repository {self.repository.name} has no snapshot {snapshot_id or 'of the configuration'}."
            )
        included = [f"--include=/{name}" for name in parts]
        try:
            self._run("restore", "--no-lock", chosen.snapshot_id, f"--target={target}", "--verify", *included)
        except BackupError as error:
            raise RestoreError(f"{error} Take another snapshot, or another repository.") from error
        return chosen

    def is_begun(self) -> bool:
        """Whether a snapshot was ever made there. Raise BackupError if the repository cannot be read."""
        try:
            self._run("snapshots", "--no-lock", f"--host={_HOST}")
        except BackupError as error:
            if _is_not_there(error):
                return False
            raise
        return True

    def verify(self) -> None:
        """Read all of it and compare digests. Raise BackupError with what is wrong."""
        self._run("check", "--read-data")

    def _prepare(self, error: BackupError) -> None:
        """Have a repository where none is yet, and no lock of a process that was killed. Raise error if it is else."""
        if "lock" in str(error):
            self._run("unlock")
        elif _is_not_there(error):
            self._run("init")
        else:
            raise error

    def _run(self, *words: str, folder: Path | None = None) -> str:
        try:
            process = subprocess.Popen(
                ["restic", *self._words, *words], env=self._environment, cwd=folder, text=True, errors="replace",
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise SettingsError("restic is not installed. Install it: `apt-get install restic`.") from error
        try:
            said, failed = process.communicate(timeout=READ_TIMEOUT_S if words[0] == "check" else TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()  # and not waited for: a call on a dead share never ends
            raise BackupError(
                f"restic {words[0]} has not ended in {TIMEOUT_S / 3600:.0f} hours. Is the repository's share dead?"
            ) from None
        if process.returncode != 0:
            why = " ".join(failed.split())[-400:] or f"it ended with {process.returncode}"
            raise BackupError(f"restic {words[0]}: {why}. The snapshots that were there stand.")
        return said


def _is_not_there(error: BackupError) -> bool:
    return any(words in str(error) for words in ("Is there a repository", "does not exist", "no such file"))


def _place(repository: Repository) -> str:
    if repository.folder is not None:
        return str(repository.folder / FOLDER)
    if repository.kind == "s3":
        bucket, prefix = split_location(repository.place)
        region = repository.options.get("region", "us-east-1")
        endpoint = repository.options.get("endpoint") or f"https://s3.{region}.amazonaws.com"
        return f"s3:{endpoint.rstrip('/')}/{bucket}/{prefix}{FOLDER}"
    raise SettingsError(f"restic knows no repository of kind {repository.kind}. Take a folder, S3 or SFTP.")


def _secrets(repository: Repository) -> dict[str, str]:
    if repository.kind != "s3":
        return {}
    credentials = read_credentials(repository.credentials)
    found = {
        "AWS_ACCESS_KEY_ID": credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
        "AWS_DEFAULT_REGION": repository.options.get("region", "us-east-1"),
    }
    return {**found, **({"AWS_SESSION_TOKEN": credentials.session_token} if credentials.session_token else {})}


def _certificate(repository: Repository) -> list[str]:
    name = repository.options.get("ca_file")
    return [f"--cacert={repository.credentials.parent / name}"] if name else []


def _time(text: str) -> datetime:
    """restic's times have nanoseconds, which Python 3.11 does not read."""
    head, _, tail = text.partition(".")
    zone = tail.lstrip("0123456789") if tail else ""
    micro = tail[: len(tail) - len(zone)][:6].ljust(6, "0")
    return datetime.fromisoformat(f"{head}.{micro}{zone}" if tail else text)
