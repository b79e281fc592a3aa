"""The backup repositories of an instance: where each is, when it is written to, and how it is opened.

What a person said of one is in DATA/config/repositories/<name>.toml, mode 0600, beside it <name>.credentials (a
bucket's keys, an SFTP password), <name>.key (an SFTP private key) and <name>.pem (a certificate), where its kind needs
them. In the index a repository is a volume of tier 4; its row can be made again from these files at any time.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pacs.archive.known_volumes import repositories_folder
from pacs.errors import BackupError, ForeignVolume, NotFound, SettingsError
from pacs.index.volumes import REPOSITORY_ROLE, REPOSITORY_TIER, KnownVolume
from pacs.model.schedule import Window
from pacs.storage.keyring import Keyring
from pacs.storage.kinds import Kind
from pacs.storage.opening import Place
from pacs.storage.sealed import SealedVolume

ROLE = REPOSITORY_ROLE
KEEP_FULL = 4


@dataclass(frozen=True)
class Repository:
    """A repository as a person named it."""

    name: str
    #: A folder, sftp://user@host:port/path, or s3://bucket/prefix.
    place: str
    kind: Kind
    #: The id in its identity file; empty until it is known.
    volume_id: str = ""
    #: Of its kind; no secrets: endpoint, region, host_key, ...
    options: Mapping[str, Any] = field(default_factory=dict)
    #: When it is written to, as `22:00-06:00`; empty: always.
    windows: tuple[str, ...] = ()
    bandwidth_bytes_per_s: int | None = None
    #: How many full backups of the database it keeps, with the log that belongs to them.
    keep_full: int = KEEP_FULL
    #: How soon every object in it is read again [days]; None: as scrub_period_days says.
    scrub_days: float | None = None
    #: The file of its secrets, where its kind has any.
    credentials: Path = Path()

    @property
    def volume_ids(self) -> tuple[str, ...]:
        """Its volumes: one."""
        return (self.volume_id,)

    @property
    def is_repository(self) -> bool:
        """That it is no standby."""
        return True

    @property
    def folder(self) -> Path | None:
        """Its folder, where it is one that is mounted here."""
        return Path(self.place) if self.kind in ("local", "nfs", "smb") else None

    @property
    def row(self) -> KnownVolume:
        """It as a volume of the index."""
        return KnownVolume(
            self.volume_id, self.name, REPOSITORY_TIER, self.place, self.kind, dict(self.options),
            scrub_days=self.scrub_days,
        )  # fmt: skip


def repositories(data: Path) -> list[Repository]:
    """The repositories of the instance in `data`, by name. Raise SettingsError if a file of them cannot be used."""
    return [_read(path) for path in sorted(repositories_folder(data).glob("*.toml"))]


def repository_named(data: Path, name: str) -> Repository:
    """A repository by its name. Raise NotFound."""
    for each in repositories(data):
        if each.name == name:
            return each
    raise NotFound(f"There is no repository {name}. `pacs backup repository list` shows them.")


def place_of(repository: Repository) -> Place:
    """Where it is, with the file of its secrets."""
    return Place(repository.kind, repository.place, repository.options, repository.credentials)


def open_volume(repository: Repository, keyring: Keyring, appliance_ids: frozenset[str] | None = None) -> SealedVolume:
    """Open a repository. With appliance_ids it must be one of theirs.

    Raise VolumeMissing if it is not there, ForeignVolume, WrongKey if it is sealed with other keys; each before
    anything is touched.
    """
    opened = place_of(repository).open(ROLE)
    try:
        if appliance_ids is not None and opened.identity.appliance_id not in appliance_ids:
            raise ForeignVolume(
                f"The repository at {repository.place} is of appliance {opened.identity.appliance_id}, which is "
                "not this one. Nothing was written. Give each appliance a repository of its own."
            )
        if repository.volume_id and opened.volume_id != repository.volume_id:
            raise ForeignVolume(
                f"Another repository, {opened.volume_id}, is at {repository.place}; {repository.volume_id} was. "
                "Nothing was written. Mount the right one."
            )
        return SealedVolume(opened, keyring)
    except BaseException:
        opened.close()
        raise


def content_of(repository: Repository) -> bytes:
    """What its file holds. Only what TOML and JSON write alike is in it: texts, numbers, lists of texts."""
    lines = [
        f"place = {toml_word(repository.place)}",
        f"kind = {toml_word(repository.kind)}",
        f"volume_id = {toml_word(repository.volume_id)}",
        f"windows = [{', '.join(map(toml_word, repository.windows))}]",
        f"keep_full = {repository.keep_full}",
    ]
    if repository.bandwidth_bytes_per_s is not None:
        lines.append(f"bandwidth_bytes_per_s = {repository.bandwidth_bytes_per_s}")
    if repository.scrub_days is not None:
        lines.append(f"scrub_days = {repository.scrub_days!r}")
    lines += ["", "[options]", *(f"{name} = {toml_word(value)}" for name, value in repository.options.items())]
    return ("\n".join(lines) + "\n").encode()


def toml_word(value: object) -> str:
    """A text, number or truth as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if not isinstance(value, str):
        raise BackupError(f"{value!r} cannot be kept as an option of a repository. Give a text or a number.")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in escaped) + '"'


def _read(path: Path) -> Repository:
    try:
        found = tomllib.loads(path.read_text("utf-8"))
        windows = tuple(found.pop("windows", ()))
        for words in windows:
            Window.of(words)
        return Repository(
            name=path.stem, windows=windows, credentials=path.with_suffix(".credentials"), **found
        )  # fmt: skip
    except (OSError, ValueError, TypeError) as error:  # the parser's message quotes no secret: there is none in it
        raise SettingsError(f"{path} cannot be used ({error}). Correct it, or add the repository anew.") from error
