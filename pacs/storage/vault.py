"""The folder of a vault: what another appliance keeps here, and may add to, but never take away.

    PLACE/vault.json      whose it is
    PLACE/repository/     the files as their owner sees them: a repository like any other
    PLACE/kept/<day>/…    what the owner removed or wrote over, by the day of that: <path>@<microseconds>-<random>;
                          an empty one that ends in .gone: until then there was nothing of that name

Nothing that is whole is ever changed in place. A file that the owner removes, renames or replaces goes to `kept/`, by
this machine's clock, and is out of the owner's reach; what is older than was agreed is purged by this machine. A file's
time of modification is when it came, as the owner cannot set it. So the repository as it was at any moment since can be
put back (`rewind`), and that itself takes nothing away.

A file that is being written, or was closed and not renamed yet in the same session, may be removed by that session: it
was nobody's yet.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path, PurePosixPath

from pacs import clock
from pacs.errors import UsageError, VolumeMissing
from pacs.storage import durable
from pacs.storage.small_json import read_record

#: The one folder that the owner sees.
TOP = "repository"
_ABOUT, _KEPT = "vault.json", "kept"
_KEPT_NAME = re.compile(r"(?P<name>.+)@(?P<at>\d{16})-[0-9a-f]{8}(?P<gone>\.gone)?", re.DOTALL)


@dataclass(frozen=True)
class Kept:
    """What the owner removed or wrote over within an hour (UTC)."""

    hour: datetime
    files: int
    #: Of them images.
    objects: int
    size_bytes: int


@dataclass(frozen=True)
class Rewound:
    """How many files a rewind put back, and how many it put aside."""

    put_back: int = 0
    put_aside: int = 0

    def __add__(self, other: Rewound) -> Rewound:
        return Rewound(self.put_back + other.put_back, self.put_aside + other.put_aside)


class VaultFolder:
    """An open vault. Its functions may be called by several threads."""

    def __init__(self, place: Path) -> None:
        """Raise VolumeMissing if the vault is not there: its disk may not be mounted."""
        self.place, self.root, self._kept = place, place / TOP, place / _KEPT
        self._lock = threading.Lock()
        if read_record(place / _ABOUT) is None or not self.root.is_dir():
            raise VolumeMissing(f"There is no vault at {place}: {_ABOUT} is missing. Is its disk mounted?")

    @classmethod
    def make(cls, place: Path, name: str) -> VaultFolder:
        """Make an empty folder a vault, or open it if it is that of this name. Raise UsageError."""
        found = read_record(place / _ABOUT)
        if found is not None and found.get("name") != name:
            raise UsageError(f"{place} is the vault {found.get('name')}. Take another folder.")
        others = sorted({each.name for each in place.iterdir()} - {"lost+found", _ABOUT}) if place.is_dir() else []
        if found is None and others:
            raise UsageError(f"{place} is not empty: it holds {others[0]}. Take an empty folder, or an empty disk.")
        for folder in (place, place / TOP, place / _KEPT):
            durable.make_folders(folder)
        content = json.dumps({"format": 1, "name": name}).encode() + b"\n"
        durable.replace_file(place / _ABOUT, content)  # last: what has it is whole
        return cls(place)

    def path(self, name: str) -> Path:
        """The file that the owner calls `name`. Raise FileNotFoundError for what is not below the one folder."""
        parts = PurePosixPath("/", name).parts[1:]
        if not parts or parts[0] != TOP or ".." in parts or "\0" in name:
            raise FileNotFoundError(name)
        return self.place.joinpath(*parts)

    def free_bytes(self) -> int:
        """How much room there is."""
        return shutil.disk_usage(self.place).free

    def create(self, path: Path) -> int:
        """A file descriptor of a new file; one that is there is put aside."""
        with contextlib.suppress(FileNotFoundError):
            self.put_aside(path)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)

    def put_aside(self, path: Path) -> None:
        """Take a file out of the owner's reach. Raise FileNotFoundError, IsADirectoryError."""
        with self._lock:
            _require_file(path)
            target = self._aside(path)
            os.rename(path, target)
        durable.fsync_folder(target.parent)
        durable.fsync_folder(path.parent)

    def rename(self, old: Path, new: Path, is_young: bool) -> None:
        """Give a file another name; one that has it is kept, and so is what was not young under its old one. A reader
        sees the one or the other, also if this is ended in the middle."""
        with self._lock:  # else what another session puts there meanwhile would be lost
            _require_file(old)
            if old == new:
                return
            if not is_young:
                self._keep(old)
            if new.exists():
                _require_file(new)
                self._keep(new)
            elif not is_young:
                self._note_absent(new)
            os.rename(old, new)
        durable.fsync_folder(new.parent)
        if old.parent != new.parent:
            durable.fsync_folder(old.parent)

    def _keep(self, path: Path) -> None:
        """Have a file in `kept/` under a second name."""
        os.link(path, target := self._aside(path))
        durable.fsync_folder(target.parent)

    def kept(self) -> Iterator[Kept]:
        """What was removed or written over, by the hour, oldest first."""
        for day in self._days():
            hours: dict[datetime, list[int]] = {}
            for path in _files(self._kept / day.isoformat()):
                found = _KEPT_NAME.fullmatch(path.name)
                if found is None or found["gone"]:
                    continue
                hour = _moment(int(found["at"])).replace(minute=0, second=0, microsecond=0)
                counts = hours.setdefault(hour, [0, 0, 0])
                counts[0] += 1
                counts[1] += path.relative_to(self._kept).parts[2:3] == ("objects",)
                counts[2] += path.lstat().st_size
            yield from (Kept(hour, *hours[hour]) for hour in sorted(hours))

    def purge(self, before: date) -> int:
        """Remove for good what was put aside before a day; return how many days went."""
        gone = [each for each in self._days() if each < before]
        for each in gone:
            shutil.rmtree(self._kept / each.isoformat())
        return len(gone)

    def rewind(self, moment: datetime) -> Rewound:
        """Put the repository back to what it was at a moment: what came since is put aside, what went since is put
        back. Nothing is lost by it; one that was ended is given again. Nobody may write meanwhile."""
        return self._rewind(PurePosixPath(TOP), int(moment.timestamp() * 1e6))

    def _rewind(self, folder: PurePosixPath, at: int) -> Rewound:
        here, done = self.place / folder, Rewound()
        days = [self._kept / day.isoformat() / folder for day in self._days()]
        kept: dict[str, list[tuple[int, Path | None]]] = {}
        names, folders = set[str](), set[str]()
        for listed in (here, *days):
            for each in _listed(listed):
                found = _KEPT_NAME.fullmatch(each.name) if listed is not here else None
                if each.is_dir(follow_symlinks=False):
                    folders.add(each.name)
                elif found is not None:
                    there = None if found["gone"] else Path(each.path)
                    kept.setdefault(found["name"], []).append((int(found["at"]), there))
                    names.add(found["name"])
                elif listed is here:
                    names.add(each.name)
        for name in sorted(names):
            done += self._put_back(here / name, _version(here / name, kept.get(name, []), at))
        for name in sorted(folders):
            done += self._rewind(folder / name, at)
        return done

    def _put_back(self, path: Path, wanted: Path | None) -> Rewound:
        exists = path.exists()
        if wanted is not None and exists and wanted.samefile(path):
            return Rewound()
        if exists:
            self.put_aside(path)
        if wanted is not None:
            if not exists:
                self._note_absent(path)
            durable.make_folders(path.parent)
            os.link(wanted, path)
            durable.fsync_folder(path.parent)
        return Rewound(wanted is not None, exists)

    def _note_absent(self, path: Path) -> None:
        """A file is about to be there that is older than its name."""
        target = self._aside(path, ".gone")
        target.touch(mode=0o640)
        durable.fsync_folder(target.parent)

    def _aside(self, path: Path, ending: str = "") -> Path:
        now = clock.now()
        name = f"{path.name}@{int(now.timestamp() * 1e6):016}-{secrets.token_hex(4)}{ending}"
        target = self._kept / now.astimezone(UTC).date().isoformat() / path.relative_to(self.place).with_name(name)
        durable.make_folders(target.parent)
        return target

    def _days(self) -> list[date]:
        return sorted(date.fromisoformat(each.name) for each in _listed(self._kept) if each.is_dir())


def _version(path: Path, kept: list[tuple[int, Path | None]], at: int) -> Path | None:
    """The file that had a name at a moment: the one that was put aside first since, else the one that is there; if it
    had come by then."""
    found = min((each for each in kept if each[0] > at), default=(0, path), key=lambda each: each[0])[1]
    try:
        return found if found is not None and found.stat().st_mtime_ns // 1000 <= at else None
    except FileNotFoundError:
        return None


def _require_file(path: Path) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise IsADirectoryError(f"{path} is no file")


def _moment(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1e6, UTC)


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as found:
        return list(found)
    return []


def _files(folder: Path) -> Iterator[Path]:
    for each in _listed(folder):
        if each.is_dir(follow_symlinks=False):
            yield from _files(Path(each.path))
        else:
            yield Path(each.path)
