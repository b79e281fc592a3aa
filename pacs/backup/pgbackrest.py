"""pgBackRest: a configuration for each repository, and how it is run.

Each repository has a configuration of its own in which it is the only one: they do not wait for one another, and none
is renumbered when another is added or taken away. pgBackRest finds the cluster by its Unix socket and its folder; it
needs no root.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import queue
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pacs.backup.repositories import Repository
from pacs.backup.sftp_login import write_login
from pacs.errors import BackupError, SettingsError
from pacs.index.server import ServerPlace
from pacs.storage import durable
from pacs.storage.keyring import Keyring
from pacs.storage.s3_client import read_credentials, split_location

#: Called with how much is done [percent].
Progress = Callable[[float], None]
STANZA = "pacs"
#: Below a repository.
FOLDER = "pgbackrest"
#: How long pgBackRest waits for the log of a backup to be in the repository [s].
ARCHIVE_TIMEOUT_S = 300


def configuration(
    repository: Repository, keyring: Keyring, runtime: Path, server: ServerPlace | None, folder: Path
) -> str:
    """The text of pgbackrest.conf for one repository.

    runtime: where locks are; server: None for a restore; folder: for files that it names, keys of logins.
    """
    options: dict[str, Any] = {
        **_place(repository, folder),
        "repo1-cipher-type": "aes-256-cbc",
        "repo1-cipher-pass": keyring.pgbackrest_passphrase,
        "repo1-retention-full": max(1, repository.keep_full),
        "repo1-bundle": "y",
        "lock-path": runtime / "lock",
        "spool-path": runtime / "spool",
        "log-path": runtime / "log",
        "log-level-file": "off",
        "compress-type": "zst",
        "archive-timeout": ARCHIVE_TIMEOUT_S,
        "start-fast": "y",
    }
    lines = ["# Written by the service; what is changed here is lost.", "[global]"]
    lines += [f"{name}={_word(value)}" for name, value in options.items() if value is not None]
    if server is not None:
        lines += [
            f"\n[{STANZA}]", f"pg1-path={_word(server.data_directory)}", f"pg1-port={server.port}",
            f"pg1-socket-path={_word(server.socket_folder)}", f"pg1-user={_word(server.user)}",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _place(repository: Repository, folder: Path) -> dict[str, Any]:
    if repository.folder is not None:
        # `cifs` is a folder without links and without fsyncs of folders, which SMB doesn't have.
        kind = "cifs" if repository.kind == "smb" else "posix"
        return {"repo1-type": kind, "repo1-path": repository.folder / FOLDER}
    if repository.kind == "s3":
        return _bucket(repository, folder)
    if repository.kind == "sftp":
        return _sftp(repository, folder)
    raise SettingsError(f"pgBackRest knows no repository of kind {repository.kind}. Take a folder, S3 or SFTP.")


def _bucket(repository: Repository, folder: Path) -> dict[str, Any]:
    bucket, prefix = split_location(repository.place)
    options = repository.options
    region = options.get("region", "us-east-1")
    endpoint = urlsplit(options.get("endpoint") or f"https://s3.{region}.amazonaws.com")
    if endpoint.scheme != "https":
        raise SettingsError(
            f"Repository {repository.name}: the database's backup goes to S3 by https only, and its endpoint is "
            f"{endpoint.scheme}://. Give the endpoint a certificate, and name its ca_file if it is not a public one."
        )
    credentials = read_credentials(repository.credentials)
    return {
        "repo1-type": "s3",
        "repo1-path": f"/{prefix}{FOLDER}",
        "repo1-s3-bucket": bucket,
        "repo1-s3-endpoint": endpoint.hostname,
        "repo1-storage-port": endpoint.port,
        "repo1-storage-ca-file": _ca_file(repository, folder),
        "repo1-s3-region": region,
        "repo1-s3-uri-style": "path" if options.get("path_style", "endpoint" in options) else "host",
        "repo1-s3-key": credentials.access_key_id,
        "repo1-s3-key-secret": credentials.secret_access_key,
        "repo1-s3-token": credentials.session_token,
    }


def _ca_file(repository: Repository, folder: Path) -> Path | None:
    """A copy of the certificate that signed the endpoint's: in a restore another user reads it."""
    name = repository.options.get("ca_file")
    if not name:
        return None
    copied = folder / f"{repository.name}.pem"
    write_configuration(copied, (repository.credentials.parent / name).read_text("ascii"))
    return copied


def _sftp(repository: Repository, folder: Path) -> dict[str, Any]:
    """Of pgBackRest 2.46 and later."""
    login = write_login(repository, folder)
    return {
        "repo1-type": "sftp",
        "repo1-path": f"{login.path}/{FOLDER}",
        "repo1-sftp-host": login.host,
        "repo1-sftp-host-port": login.port,
        "repo1-sftp-host-user": login.user,
        "repo1-sftp-private-key-file": login.private_key,
        "repo1-sftp-host-key-hash-type": "sha256",
        "repo1-sftp-host-key-check-type": "fingerprint",
        "repo1-sftp-host-fingerprint": login.fingerprint,
    }


def _word(value: Any) -> str:
    text = str(value)
    if "\n" in text or "\r" in text:
        raise SettingsError("A value of a repository's settings has a line break in it. Take it out.")
    return text


def config_file(data: Path, name: str) -> Path:
    """Where the configuration of a repository is."""
    return data / "config" / "pgbackrest" / f"{name}.conf"


def identity_folder(data: Path) -> Path:
    """Where a copy of the cluster's pg_control is: all that pgBackRest asks of the cluster when it takes its log."""
    return data / "config" / "pgbackrest" / "cluster"


def write_configuration(path: Path, text: str) -> None:
    """Write a configuration, for its owner only: it holds the pass phrase."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(OSError):
        if path.read_text("utf-8") == text:
            return
    durable.replace_file(path, text.encode(), 0o600)


class PgBackRest:
    """pgBackRest with a configuration."""

    def __init__(self, config: Path, user: str | None = None, group_of: Path | None = None) -> None:
        """user: whom it runs as, if we are root and it is not to be; then also in the group that owns a folder."""
        self.config, self.user, self.group_of = config, user, group_of

    def words(self, *words: str) -> list[str]:
        """The command line of a command."""
        return ["pgbackrest", f"--config={self.config}", f"--stanza={STANZA}", *words]

    def run(self, *words: str, stdin: int = subprocess.DEVNULL) -> str:
        """Run a command to its end; return what it printed. Raise BackupError with its reason."""
        lines: list[str] = []
        self.watch(words, lines.append, stdin)
        return "".join(lines)

    def watch(
        self,
        words: Sequence[str],
        on_line: Callable[[str], None],
        stdin: int = subprocess.DEVNULL,
        silence_s: float | None = None,
    ) -> None:
        """Run a command to its end; on_line gets each line as it is printed. Raise BackupError with its reason.

        silence_s: one that says nothing for so long hangs on a dead share, and is left behind.
        """
        process, tail = self.start(*words, stdin=stdin), list[str]()
        for line in _lines(process, silence_s):
            on_line(line)
            if "ERROR" in line or tail:
                tail = [*tail, line][:4]
        if process.wait() != 0:
            raise BackupError(f"pgBackRest: {reason(''.join(tail), process.returncode)}")

    def start(self, *words: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start a command. What it prints and its errors come by one pipe."""
        try:
            return subprocess.Popen(
                self.words(*words), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                errors="replace", env=_environment(), start_new_session=True, **as_user(self.user, self.group_of),
            )  # fmt: skip
        except FileNotFoundError as error:
            raise SettingsError("pgBackRest is not installed. Install it: `apt-get install pgbackrest`.") from error


def _lines(process: subprocess.Popen[str], silence_s: float | None) -> Iterator[str]:
    """What a process prints, line by line, until it ends. Raise BackupError if nothing comes for silence_s."""
    output = process.stdout
    assert output is not None
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        with contextlib.suppress(ValueError):
            for line in output:
                lines.put(line)
        lines.put(None)

    # A thread that may be left behind: nothing that waits for such a process can be told to stop.
    reader = threading.Thread(target=read, name="pgbackrest", daemon=True)
    reader.start()
    try:
        while (line := lines.get(timeout=silence_s)) is not None:
            yield line
    except queue.Empty:
        process.kill()
        raise BackupError(
            f"pgBackRest has done nothing for {silence_s or 0:.0f} s and is left behind. Is the repository's share "
            "dead? The backups that were there stand."
        ) from None
    reader.join()
    output.close()


def percent_of(verb: str, progress: Progress | None) -> Callable[[str], None]:
    """What `watch` is to call with each line, so that progress is told how much is done."""
    pattern = re.compile(rf"{verb} file .*?(\d+(?:\.\d+)?)%\)")

    def on_line(line: str) -> None:
        found = pattern.search(line)
        if found and progress is not None:
            progress(float(found[1]))

    return on_line


def as_user(user: str | None, group_of: Path | None = None) -> dict[str, Any]:
    """Arguments of a subprocess that is to be another user's, also of the group that owns a file: for root."""
    if user is None or os.geteuid() != 0:
        return {}
    known = pwd.getpwnam(user)
    groups = {*os.getgrouplist(user, known.pw_gid), *([group_of.stat().st_gid] if group_of else [])}
    return {"user": known.pw_uid, "group": known.pw_gid, "extra_groups": sorted(groups)}


def _environment() -> dict[str, str]:
    """Ours without settings of pgBackRest's and libpq's, which would stand above the configuration."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PGBACKREST_", "PG"))}


def reason(output: str, code: int) -> str:
    """What went wrong, in pgBackRest's words, from what it printed. They name files and numbers, no patients."""
    _, found, text = output.partition("ERROR: ")
    words = " ".join(text.split()) if found else f"it ended with {code}, without a word"
    return words[:500].rstrip(".") + "."
