"""Real files of many makers: every intact one goes in raw and comes back with the same data set bytes; every broken
one is refused with a failure status and leaves nothing behind."""

from __future__ import annotations

import csv
import itertools
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from pacs.errors import PacsError
from pacs.model.record import read_record
from tests import peer
from tests.dcmtk import dcmtk
from tests.fix_instance import Dev
from tests.peer import RawObject

#: Files under ../shared/data that are broken, by what is wrong. All others with a transfer syntax are intact.
BROKEN_PREFIXES = ("truncated_",)
BROKEN = frozenset(
    """
    3gb-bulk-data-truncated MR_truncated.dcm rtplan_truncated.dcm emri_small_jpeg_2k_lossless_too_short.dcm
    Issue111.dcm Issue195.dcm bad_sequence.dcm nested_priv_SQ.dcm
    bad_vr.dcm bigendian_ts_little_body.dcm deflate_corrupt.dcm nested_sq_3000.dcm nested_sq_unclosed.dcm
    pixeldata_len_2GB.dcm pixeldata_len_4GB.dcm pixeldata_undefined_len_native.dcm pn_len_overrun.dcm
    sq_bad_item_tag.dcm trailing_garbage.dcm
    empty_SOPClassUID.dcm empty_SOPInstanceUID.dcm empty_SeriesInstanceUID.dcm empty_StudyInstanceUID.dcm
    missing_SOPClassUID.dcm missing_SOPInstanceUID.dcm missing_SeriesInstanceUID.dcm missing_StudyInstanceUID.dcm
    uid_abs_path.dcm uid_letters.dcm uid_nul.dcm uid_sql.dcm uid_too_long.dcm uid_traversal.dcm uid_wildcard.dcm
    HTJ2K_08_RGB.dcm JLSL_08_07_0_1F.dcm JLSL_16_15_1_1F.dcm JPEGLSNearLossless_08.dcm
    JPEGLSNearLossless_16.dcm SC_rgb_jls_lossy_line.dcm SC_rgb_jls_lossy_sample.dcm UN_sequence.dcm priv_SQ.dcm
    chrSQEncoding.dcm chrSQEncoding1.dcm empty_charset_LEI.dcm no_meta_group_length.dcm
    """.split()
)
_DIRECTORY = "1.2.840.10008.1.3.10"


def _raw_files(shared_data: Path) -> list[tuple[str, RawObject]]:
    """Every file with file meta information and a transfer syntax, as raw bytes; directories are no objects."""
    found = []
    with open(shared_data / "MANIFEST.tsv", encoding="utf-8") as manifest:
        for row in csv.DictReader(manifest, delimiter="\t"):
            path = shared_data / row["path"]
            if row["sop_class_uid"] == _DIRECTORY or not path.exists():
                continue
            try:
                found.append((path.name, peer.read_raw(path)))
            except Exception:  # no DICOM file at all: there is nothing to put into a message
                continue
    return found


def _is_broken(name: str) -> bool:
    return name in BROKEN or name.startswith(BROKEN_PREFIXES)


def _batches(objects: list[RawObject], pairs_max: int = 100) -> list[list[RawObject]]:
    """Whole studies together, each batch with few enough (SOP class, transfer syntax) pairs for one association."""
    batches: list[list[RawObject]] = [[]]
    objects = sorted(objects, key=peer.study_uid_of)
    for _study, group in itertools.groupby(objects, key=peer.study_uid_of):
        study = list(group)
        if len({(raw.sop_class_uid, raw.transfer_syntax_uid) for raw in [*batches[-1], *study]}) > pairs_max:
            batches.append([])
        batches[-1] += study
    return batches


@pytest.mark.timeout(600)
def test_every_intact_file_comes_back_as_it_was_sent(shared_data: Path, new_dev) -> None:
    dev: Dev = new_dev().start()
    sent: dict[str, RawObject] = {}
    for name, raw in _raw_files(shared_data):
        if not _is_broken(name):  # a second file with one UID is the conflict tests' matter
            sent.setdefault(raw.sop_instance_uid, raw)
    batches = _batches(list(sent.values()))
    refused = [
        (raw.sop_instance_uid, status)
        for batch in batches
        for raw, status in zip(batch, peer.store(dev.dicom_port, batch), strict=True)
        if status != 0x0000
    ]
    assert not refused
    assert len(sent) > 350
    back: dict[str, RawObject] = {}
    for batch in batches:
        offered = [(raw.sop_class_uid, raw.transfer_syntax_uid) for raw in batch]
        back |= peer.get(dev.dicom_port, dict.fromkeys(map(peer.study_uid_of, batch)), offered)
    assert [uid for uid, raw in sent.items() if back.get(uid) != raw] == []
    syntaxes = Counter(raw.transfer_syntax_uid for raw in sent.values())
    print(f"corpus: {len(sent)} objects, {len(syntaxes)} transfer syntaxes, in and out with the same bytes")


def test_every_broken_file_is_refused_and_leaves_nothing(shared_data: Path, dev: Dev) -> None:
    accepted, tried = [], 0
    for name, raw in _raw_files(shared_data):
        if not _is_broken(name):
            continue
        tried += 1
        try:
            (status,) = peer.store(dev.dicom_port, [raw])
        except ValueError:  # the sender's own pynetdicom refuses its UID
            continue
        # None: the request's UID is none, and the archive's pynetdicom ended the association.
        if status is not None and not (0xC000 <= status <= 0xCFFF or 0xA900 <= status <= 0xA9FF):
            accepted.append((name, status))
    assert not accepted
    assert tried > 40
    assert not list((dev.data / "tier1" / "objects").rglob("*.dcm"))
    assert not list((dev.data / "tier1" / "incoming").iterdir())
    assert dev.pacs("study", "list", "--json").stdout.strip() == "[]"


def test_the_list_of_broken_files_is_what_the_scanner_refuses(shared_data: Path) -> None:
    wrong = []
    for name, raw in _raw_files(shared_data):
        try:
            record = read_record(raw.dataset, raw.transfer_syntax_uid)
            fits = record.sop_instance_uid == raw.sop_instance_uid and record.sop_class_uid == raw.sop_class_uid
        except PacsError:
            fits = False
        if fits == _is_broken(name):
            wrong.append(name)
    assert not wrong


def test_dcmtk_getscu_writes_the_same_bytes(shared_data: Path, new_dev, tmp_path: Path) -> None:
    """The same through DCMTK's own tools, bit preserving, for what it can negotiate by default."""
    dev: Dev = new_dev().start()
    files = [
        raw
        for name, raw in _raw_files(shared_data)
        if not _is_broken(name)
        and raw.transfer_syntax_uid == "1.2.840.10008.1.2.1"
        and raw.sop_class_uid.endswith(".1.2")
    ]
    sent = {raw.sop_instance_uid: raw for raw in reversed(files)}
    assert set(peer.store(dev.dicom_port, sent.values())) == {0x0000}
    for study in {peer.study_uid_of(raw) for raw in sent.values()}:
        subprocess.run(
            [dcmtk("getscu"), "-S", "+B", "-aec", "PACS", "-od", str(tmp_path), "-k", "QueryRetrieveLevel=STUDY"]
            + ["-k", f"StudyInstanceUID={study}", "127.0.0.1", str(dev.dicom_port)],
            check=True, capture_output=True, env={"TCP_NODELAY": "1", "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
    back = {raw.sop_instance_uid: raw for raw in map(peer.read_raw, tmp_path.iterdir())}
    assert {uid: raw.dataset for uid, raw in back.items()} == {uid: raw.dataset for uid, raw in sent.items()}
