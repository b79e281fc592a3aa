"""An archive of many objects, made as files: the same seed, the same bytes. A few kB each, or more; Part 10 as stored.

An object is made from its series' first by putting other digits and pixels in: some ten thousand a second. Their
receipts are written too, as the worker writes them; the rows are made by `pacs index rebuild`.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pacs.model.part10 import encode_file_meta
from pacs.model.record import study_key
from pacs.storage.names import object_path
from pacs.storage.receipts import Line, Receipts
from tests.synthetic import ct_dataset, encode

SERIES_A_STUDY, OBJECTS_A_SERIES = 2, 50
OBJECTS_A_STUDY = SERIES_A_STUDY * OBJECTS_A_SERIES
STUDIES_A_DAY = 100
FIRST_DAY = datetime(2025, 1, 1, 8, tzinfo=UTC)
ROWS = 32
_PLACE = 999_999  # number and UID's end, put in for each object


def make_objects(
    root: Path, receipts: Receipts, objects: int, studies_a_day: int = STUDIES_A_DAY, rows: int = ROWS
) -> tuple[int, int]:
    """Write so many objects of rows × rows pixels below root (a volume of tier 1), and their receipts; return how many
    objects and bytes."""
    count = size_bytes = 0
    for study in range(-(-objects // OBJECTS_A_STUDY)):
        arrived = FIRST_DAY + timedelta(days=study // studies_a_day, seconds=5 * (study % studies_a_day))
        lines: list[Line] = []
        for series in range(1, SERIES_A_STUDY + 1):
            stored = []
            for number, (sop_instance_uid, content) in enumerate(_series(study, series, rows)):
                at = arrived + timedelta(milliseconds=20 * (number + OBJECTS_A_SERIES * series))
                digest = hashlib.sha256(content).digest()
                path = root / object_path(1, at, study_key(f"2.25.271828182845904523536.{study}"), digest)
                _write(path, content)
                stored.append([digest.hex(), sop_instance_uid, at.isoformat()])
                count += 1
                size_bytes += len(content)
            lines.append(
                {
                    "study": f"2.25.271828182845904523536.{study}",
                    "from": {
                        "ae": f"CT{study % 8}", "peer": "192.0.2.7", "user": "", "opened": arrived.isoformat(),
                        "closed": (arrived + timedelta(seconds=4)).isoformat(), "character_set": "",
                    },
                    "stored": stored,
                }
            )  # fmt: skip
        receipts.append(lines)
    os.sync()
    return count, size_bytes


def _series(study: int, series: int, rows: int) -> Iterator[tuple[str, bytes]]:
    """SOP Instance UID and content of each object of a series."""
    made = encode(ct_dataset(study, _PLACE, rows, rows, series))
    place, pixels = str(_PLACE).encode(), 2 * rows * rows
    header = made.dataset[:-pixels]
    assert header.count(place) == 2, "the UID's end and the instance number"
    rng = random.Random(f"{study}/{series}")
    for number in range(1, OBJECTS_A_SERIES + 1):
        digits = f"{100_000 + number}"
        uid = made.sop_instance_uid.removesuffix(str(_PLACE)) + digits
        meta = encode_file_meta(made.sop_class_uid, uid, made.transfer_syntax_uid)
        yield uid, meta + header.replace(place, digits.encode()) + rng.randbytes(pixels)


def _write(path: Path, content: bytes) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    except FileNotFoundError:
        path.parent.mkdir(parents=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    os.write(fd, content)
    os.close(fd)
