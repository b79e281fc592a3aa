"""The audit log's files: append-only segments beside the journal, in one chain (pacs/model/audit_chain.py).

    DATA/audit/<number of its first line>-<yyyy-mm-dd>.jsonl    a segment: a header, lines, seals; the last one is open
    DATA/audit/lock                                             held by who writes, for a moment
    DATA/audit/state.json                                       what was sent where (pacs/jobs/auditing.py)
    DATA/audit/replaced/                                        what was here before a restore or a promotion

Several processes write. A line counts when it is whole, with its newline: half a line, which a loss of power leaves,
was never acknowledged, and the next one who writes takes it away. A segment ends with a seal, so no batch is in two.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from pacs import clock
from pacs.model.audit import Event
from pacs.model.audit_chain import FIRST_CHECK, FIRST_HEAD, Head, digest_of, line_of, parsed
from pacs.storage import durable

FOLDER = "audit"
#: A segment that has more gets no more batches [bytes].
SEGMENT_SIZE_BYTES = 1 << 20
#: No line is longer: a query's identifier and a text are bounded [bytes].
_LINE_SIZE_BYTES_MAX = 1 << 16
_NAME = re.compile(r"^(\d{12})-\d{4}-\d{2}-\d{2}\.jsonl$")

Sign = Callable[[Head], str]


@dataclass(frozen=True)
class _Tail:
    """Where the log ends: its open segment, and the last line's number and check value."""

    segment: Path
    number: int
    check: str


class AuditLog:
    """The audit log of the instance in a data directory."""

    def __init__(self, data: Path) -> None:
        self.data, self.folder = data, data / FOLDER

    def append(self, events: Sequence[Event]) -> int:
        """Write events durably; return the last one's number. Raise VolumeFull or VolumeFailed."""
        with self._alone():
            tail = self._tail()
            content, number, check = b"", tail.number, tail.check
            for each in events:
                at = each.get("at") or clock.now().isoformat(timespec="microseconds")
                line, check = line_of(number + 1, check, {"at": at, **each})
                content, number = content + line, number + 1
            self._write(tail.segment, content)
            return number

    def seal(self, sign: Sign | None = None) -> Head | None:
        """End the batch of lines that no seal is behind yet; return its head, None if there are none.

        Raise VolumeFull or VolumeFailed.
        """
        with self._alone():
            tail = self._tail()
            before, batch = _batch(tail.segment)
            numbers = [(values["n"], values.get("e")) for line in batch if (values := parsed(line)) is not None]
            if all(kind == "segment" for _number, kind in numbers):
                return None
            at = clock.now().isoformat(timespec="microseconds")
            values = {"at": at, "e": "seal", "first": numbers[0][0], "last": tail.number}
            head = Head(tail.number + 1, digest_of(before, batch, {"n": tail.number + 1, **values}))
            signature = {"sig": sign(head)} if sign is not None else {}
            line, check = line_of(head.number, tail.check, {**values, "head": head.digest, **signature})
            self._write(tail.segment, line)
            if tail.segment.stat().st_size >= SEGMENT_SIZE_BYTES or f"{clock.now():%Y-%m-%d}" not in tail.segment.name:
                self._new_segment(head.number, check, head.digest)
            return head

    def segments(self) -> list[Path]:
        """The segments' files, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.match(path.name))

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """Every whole line, oldest first, with its newline, and where it is."""
        for segment in self.segments():
            for number, line in enumerate(_whole_lines(segment.read_bytes()), 1):
                yield f"{segment.name}, line {number}", line

    def read(self, first: int = 1) -> Iterator[Event]:
        """Every event from a number on, seals and headers too, oldest first. What is no line is left out."""
        segments = self.segments()
        for segment, after in zip(segments, [*segments[1:], None], strict=True):
            if after is not None and first_of(after.name) <= first:
                continue
            for line in _whole_lines(segment.read_bytes()):
                values = parsed(line)
                if values is not None and values["n"] >= first:
                    yield values

    def newest_backwards(self) -> Iterator[Event]:
        """Every event, the newest first."""
        for segment in reversed(self.segments()):
            for line in reversed(_whole_lines(segment.read_bytes())):
                values = parsed(line)
                if values is not None:
                    yield values

    def ids_since(self, since: datetime) -> set[str]:
        """The ids of events that were written since then."""
        found: set[str] = set()
        oldest = since.isoformat()
        for each in self.newest_backwards():
            if str(each.get("at", "")) < oldest and each.get("e") == "segment":
                break
            if "id" in each:
                found.add(each["id"])
        return found

    def head(self) -> Head | None:
        """The newest head; None if nothing was sealed yet."""
        for each in self.newest_backwards():
            if each.get("e") == "seal":
                return Head(each["n"], each["head"])
        return None

    def unsealed_since(self) -> datetime | None:
        """When the oldest event was written that no seal is behind; None if there is none."""
        oldest = None
        for each in self.newest_backwards():
            if each.get("e") == "seal":
                break
            if each.get("e") != "segment":
                oldest = each["at"]
        return datetime.fromisoformat(oldest) if oldest else None

    def expire(self, before: datetime, by: Mapping[str, str]) -> int:
        """Remove the segments all of whose lines are older; return how many. That they expired is written first."""
        segments = self.segments()
        old = []
        for segment, after in pairwise(segments):
            header = parsed(_first_line(after))
            if header is None or str(header.get("at")) >= before.isoformat():
                break
            old.append((segment, header))
        if not old:
            return 0
        last = old[-1][1]
        event: Event = {
            "e": "log expired", "by": dict(by), "last": last["n"] - 1, "head": last["before"]["head"],
            "text": f"lines up to {last['n'] - 1} are older than the log is kept",
        }  # fmt: skip
        self.append([event])
        for segment, _header in old:
            segment.unlink(missing_ok=True)
        durable.fsync_folder(self.folder)
        return len(old)

    def replace(self, segments: Mapping[str, bytes]) -> None:
        """Make another copy's segments the log: a restore's, a promotion's. What was here is put into replaced/."""
        with self._alone():
            ours = self.segments()
            if ours:
                aside = self.folder / "replaced" / f"{clock.now():%Y%m%dT%H%M%S_%f}"
                self._make(aside.parent)
                self._make(aside)
                for path in ours:
                    path.rename(aside / path.name)
            for name in sorted(segments):
                if not _NAME.match(name):
                    continue
                durable.create_file(self.folder / name, b"".join(_whole_lines(segments[name])))
                self._give(self.folder / name)
            durable.fsync_folder(self.folder)

    # --- writing -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self._make(self.folder)
            fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                self._give(self.folder / "lock")
                fcntl.flock(fd, fcntl.LOCK_EX)
                yield
            finally:
                os.close(fd)
        except OSError as error:
            raise durable.as_volume_error(error, self.folder) from error

    def _tail(self) -> _Tail:
        """Where the next line goes. Half a line is taken away: nobody was told that it was there."""
        segments = self.segments()
        if not segments:
            return self._new_segment(0, FIRST_CHECK, FIRST_HEAD)
        segment = segments[-1]
        fd = os.open(segment, os.O_RDWR | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            end = os.pread(fd, _LINE_SIZE_BYTES_MAX * 2, max(0, size - _LINE_SIZE_BYTES_MAX * 2))
            whole = end[: end.rfind(b"\n") + 1]
            if len(whole) < len(end):
                os.ftruncate(fd, size - len(end) + len(whole))
                durable.fsync_fd(fd)
        finally:
            os.close(fd)
        last = whole[whole[:-1].rfind(b"\n") + 1 :]
        values = parsed(last)
        if values is None:  # somebody wrote into it: what comes goes on behind, and `pacs audit verify` names the line
            values = {"n": first_of(segment.name) + whole.count(b"\n"), "c": FIRST_CHECK}
        return _Tail(segment, values["n"], values["c"])

    def _new_segment(self, number: int, check: str, head: str) -> _Tail:
        now = clock.now()
        path = self.folder / f"{number + 1:012d}-{now:%Y-%m-%d}.jsonl"
        line, own = line_of(
            number + 1, check,
            {"at": now.isoformat(timespec="microseconds"), "e": "segment", "before": {"c": check, "head": head}},
        )  # fmt: skip
        durable.create_file(path, line)
        self._give(path)
        return _Tail(path, number + 1, own)

    def _write(self, segment: Path, content: bytes) -> None:
        fd = os.open(segment, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            left = content
            while left:
                left = left[os.write(fd, left) :]
            durable.fsync_fd(fd)
        finally:
            os.close(fd)

    def _make(self, folder: Path) -> None:
        if not folder.is_dir():
            durable.make_folders(folder)
            self._give(folder)

    def _give(self, path: Path) -> None:
        """What root writes is the service's: of whoever owns the folder, or the journal beside it."""
        if os.geteuid() != 0:
            return
        with contextlib.suppress(OSError):
            beside = next(each for each in (self.data / "journal", self.data) if each.exists())
            owner = (beside if path == self.folder else self.folder).stat()
            os.chown(path, owner.st_uid, owner.st_gid)


def first_of(name: str) -> int:
    """The number of a segment's first line."""
    found = _NAME.match(name)
    return int(found[1]) if found else 0


def is_segment(name: str) -> bool:
    """Whether a file's name is a segment's."""
    return _NAME.match(name) is not None


def whole(content: bytes) -> bytes:
    """A segment's whole lines."""
    return content[: content.rfind(b"\n") + 1]


def _whole_lines(content: bytes) -> list[bytes]:
    return [line + b"\n" for line in content.split(b"\n")[:-1]]


def _first_line(segment: Path) -> bytes:
    with segment.open("rb") as file:
        return file.readline()


def _batch(segment: Path) -> tuple[str, list[bytes]]:
    """The head that a segment's open batch follows, and the batch's lines."""
    before, batch = FIRST_HEAD, list[bytes]()
    for line in _whole_lines(segment.read_bytes()):
        values = parsed(line)
        if values is not None and values.get("e") == "seal":
            before, batch = values["head"], []
            continue
        if values is not None and values.get("e") == "segment" and not batch:
            before = values["before"]["head"]
        batch.append(line)
    return before, batch
