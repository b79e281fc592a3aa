"""Real files of many makers in every transfer syntax that they can be given in: whole, the same pixels, or a reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pydicom
import pytest

from pacs.errors import CannotUnderstand
from pacs.model import codec
from pacs.model.dataset import scan
from pacs.model.recode import recode
from tests.integration.test_corpus import _is_broken, _raw_files
from tests.peer import RawObject
from tests.unit.model.test_recode import read

_TARGETS = (*codec.NATIVE, *codec.LOSSLESS_TARGETS)
_SIZE_BYTES_MAX = 3_000_000


def _given(raw: RawObject, target: str) -> bytes:
    source = raw.transfer_syntax_uid
    if source in codec.NATIVE and target in codec.NATIVE:
        return b"".join(recode([raw.dataset], source, target))
    return b"".join(codec.transcode(raw.dataset, source, target))


def _identity(ds: pydicom.Dataset) -> list[str]:
    return [str(ds.get(keyword)) for keyword in ("SOPInstanceUID", "StudyInstanceUID", "PatientName", "PatientID")]


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_intact_file_in_every_transfer_syntax(shared_data: Path) -> None:
    found: Counter[tuple[str, str]] = Counter()
    for name, raw in _raw_files(shared_data):
        if _is_broken(name) or len(raw.dataset) > _SIZE_BYTES_MAX:
            continue
        for target in _TARGETS:
            if target == raw.transfer_syntax_uid:
                continue
            try:
                given = _given(raw, target)
            except CannotUnderstand as error:
                assert str(error).endswith(".")
                found["refused", target] += 1
                continue
            found["given", target] += 1
            scan(given, target, ())
            assert _identity(read(given, target)) == _identity(read(raw.dataset, raw.transfer_syntax_uid)), name
    print(found)
    for target in codec.NATIVE:
        assert found["given", target] > 200
    for target in codec.LOSSLESS_TARGETS:
        assert found["given", target] > 150
