"""What is to be copied, in batches, and its bytes read before they are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from pacs.errors import PacsError
from pacs.model.schedule import Bucket

#: What is synced and committed together, at most: objects, and bytes of them.
BATCH_OBJECTS = 1024
BATCH_SIZE_BYTES = 64 << 20
#: Files that are read at once: while one waits for the disk another is hashed.
READ_AT_ONCE = 4
#: The largest object that is read before it is its turn [bytes].
_AHEAD_SIZE_BYTES = 1 << 20
#: ... and how many of them a thread is given together.
_GIVEN_AT_ONCE = 32
#: How many studies are moved together while they are small.
_TOGETHER_MAX = 100
_T = TypeVar("_T")


@dataclass(frozen=True)
class Source:
    """A copy of an object: where it is."""

    copy_key: int
    volume_id: str
    path: str


@dataclass(frozen=True)
class Item:
    """An object to be copied, and the copies that it can be read from, the best first."""

    object_key: int
    sha256: bytes
    size_bytes: int
    sources: tuple[Source, ...]
    #: Where it is to be put: one path for ever, as a repository has it. Empty: a fresh one, `like` another.
    path: str = ""
    #: A path like its new one; empty: as that of its first source.
    like: str = ""


def batches(items: Iterable[Item], bucket: Bucket | None = None) -> Iterator[list[Item]]:
    """Objects in the batches that they are copied in; with a bound on bytes a second, about a second's worth each."""
    size_max = BATCH_SIZE_BYTES
    if bucket is not None and bucket.bytes_per_s is not None:
        size_max = min(size_max, bucket.bytes_per_s)
    batch: list[Item] = []
    size_bytes = 0
    for item in items:
        if batch and (len(batch) >= BATCH_OBJECTS or size_bytes + item.size_bytes > size_max):
            yield batch
            batch, size_bytes = [], 0
        batch.append(item)
        size_bytes += item.size_bytes
    if batch:
        yield batch


def some_at_once(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """As many as one thread is given at once."""
    return (items[at : at + _GIVEN_AT_ONCE] for at in range(0, len(items), _GIVEN_AT_ONCE))


class ReadAhead:
    """Small objects are read before it is their turn, several at once, a batch ahead: a disk likes to be asked for
    more than one thing. A large one is read when it is its turn."""

    def __init__(self, readers: ThreadPoolExecutor, read: Callable[[Item], Iterator[bytes]]) -> None:
        self._readers, self._read = readers, read
        self._reading: dict[int, Future[dict[int, list[bytes] | PacsError]]] = {}

    def batches(self, found: Iterator[list[Item]]) -> Iterator[list[Item]]:
        """The batches, each of them begun to be read before the one before it is over."""
        ready: deque[list[Item]] = deque()
        for batch in found:
            small = [item for item in batch if item.size_bytes <= _AHEAD_SIZE_BYTES]
            for some in some_at_once(small):
                self._reading |= dict.fromkeys(
                    (item.object_key for item in some), self._readers.submit(self._read_some, some)
                )
            ready.append(batch)
            if len(ready) > 1:
                yield ready.popleft()
        yield from ready

    def chunks(self, item: Item) -> Iterator[bytes]:
        """An object's bytes."""
        reading = self._reading.pop(item.object_key, None)
        if reading is None:
            yield from self._read(item)
            return
        content = reading.result().pop(item.object_key)
        if isinstance(content, PacsError):
            raise content
        yield from content

    def close(self) -> None:
        """What is not begun yet is not read."""
        for reading in self._reading.values():
            reading.cancel()

    def _read_some(self, items: Sequence[Item]) -> dict[int, list[bytes] | PacsError]:
        found: dict[int, list[bytes] | PacsError] = {}
        for item in items:
            try:
                found[item.object_key] = list(self._read(item))
            except PacsError as error:
                found[item.object_key] = error
        return found


def together(
    studies: Sequence[dict[str, Any]], size_bytes_max: int | None, moved_bytes: Callable[[], int] = lambda: 0
) -> Iterator[list[dict[str, Any]]]:
    """Studies in groups that are moved together: small ones share the cost of a sync and a commit.

    Ends when size_bytes_max have moved; a group does not go beyond them by more than one study.
    """
    group: list[dict[str, Any]] = []
    objects = size_bytes = 0
    for study in studies:
        if size_bytes_max is not None and moved_bytes() + size_bytes >= size_bytes_max:
            break
        group.append(study)
        objects += study["objects"]
        size_bytes += study["size_bytes"]
        if objects >= BATCH_OBJECTS or len(group) >= _TOGETHER_MAX:
            yield group
            group, objects, size_bytes = [], 0, 0
    if group:
        yield group
