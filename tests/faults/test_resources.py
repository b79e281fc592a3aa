"""A volume that is full, gone or refuses to write: the sender is told to try again (0xA700),
nothing is half stored, and the archive goes on by itself when it can."""

from __future__ import annotations

import errno
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pacs.archive.store import Arrival
from pacs.cli.instance import Instance
from pacs.errors import VolumeFailed, VolumeFull, VolumeMissing
from tests import peer
from tests.faults.aftermath import assert_nothing_lost
from tests.faults.sender import Account, missing_or_different
from tests.fix_instance import Dev
from tests.peer import RawObject
from tests.synthetic import ct_dataset, ct_study, encode

OUT_OF_RESOURCES = 0xA700


def _raw(seed: int, count: int = 1, rows: int = 64) -> list[RawObject]:
    return [RawObject.of(made) for made in ct_study(seed, count, rows, rows)]


def _objects(root: Path) -> list[Path]:
    return list((root / "objects").rglob("*.dcm"))


@pytest.fixture
def tiny_volume(short_folder: Path) -> Iterator[Path]:
    """A file system of 66 MiB: two more than what receiving leaves free."""
    root = short_folder / f"tiny{uuid.uuid4().hex[:6]}"
    root.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=66m", "tmpfs", str(root)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    yield root
    subprocess.run(["umount", "--lazy", str(root)], check=False)


def test_a_full_volume_is_answered_with_a700_and_goes_on_when_there_is_room(
    new_dev: Callable[..., Dev], tiny_volume: Path
) -> None:
    dev = new_dev(PACS_TIER1=str(tiny_volume), PACS_ORPHAN_AGE_S="0").start()
    statuses = peer.store(dev.dicom_port, _raw(3, 12, rows=512))
    assert statuses[0] == 0x0000
    assert statuses[-1] == OUT_OF_RESOURCES
    assert set(statuses) == {0x0000, OUT_OF_RESOURCES}
    assert len(_objects(tiny_volume)) == statuses.count(0x0000)
    assert not list((tiny_volume / "incoming").iterdir())
    assert "No room left" in dev.log()
    assert dev.pacs("check", check=False).returncode == 2
    subprocess.run(["mount", "-o", "remount,size=100m", str(tiny_volume)], check=True)
    account, raw = Account(), _raw(3, 12, rows=512)
    for each, status in zip(raw, peer.store(dev.dicom_port, raw), strict=True):
        account.sent[each.sop_instance_uid] = each
        account.note(each, status)
    assert account.statuses == [0x0000] * 12
    assert_nothing_lost(dev, account)


def test_a_volume_that_is_added_takes_what_the_full_one_cannot_and_nothing_restarts(
    new_dev: Callable[..., Dev], tiny_volume: Path, short_folder: Path
) -> None:
    dev = new_dev(PACS_TIER1=str(tiny_volume), PACS_ORPHAN_AGE_S="0").start()
    account, raw = Account(), _raw(3, 16, rows=512)
    statuses = peer.store(dev.dicom_port, raw)
    assert statuses[-1] == OUT_OF_RESOURCES
    second = short_folder / f"second{uuid.uuid4().hex[:6]}"
    second.mkdir()
    # The receiver is another process: it may not know of the volume yet when the command is over.
    dev.pacs("volume", "add", "second", str(second), "--tier", "1", "--on-system-disk")
    ends = time.monotonic() + 30
    while peer.store(dev.dicom_port, [raw[-1]]) != [0x0000]:
        assert time.monotonic() < ends
    for each, status in zip(raw, peer.store(dev.dicom_port, raw), strict=True):
        account.sent[each.sop_instance_uid] = each
        account.note(each, status)
    assert account.statuses == [0x0000] * 16
    assert len(_objects(tiny_volume)) + len(_objects(second)) == 16
    # Taken out again: what comes goes to the first, which is full, and is refused until the drain is undone.
    dev.pacs("volume", "drain", "second")
    while peer.store(dev.dicom_port, _raw(uuid.uuid4().int % 10**6, rows=1024)) != [OUT_OF_RESOURCES]:
        assert time.monotonic() < ends
    dev.pacs("volume", "drain", "second", "--undo")
    assert missing_or_different(dev.dicom_port, account) == []


def test_a_volume_that_went_away_is_noticed_before_a_byte_is_written(
    new_dev: Callable[..., Dev], tiny_volume: Path
) -> None:
    dev = new_dev(PACS_TIER1=str(tiny_volume)).start()
    assert peer.store(dev.dicom_port, _raw(4)) == [0x0000]
    subprocess.run(["umount", "--lazy", str(tiny_volume)], check=True)
    assert peer.store(dev.dicom_port, _raw(5)) != [0x0000]
    assert list(tiny_volume.iterdir()) == []
    dev.stop()
    dev.start()  # a volume that is missing keeps nothing from starting
    assert peer.store(dev.dicom_port, _raw(5)) == [OUT_OF_RESOURCES]
    assert "tier1: There is no volume at" in dev.pacs("check", check=False).stdout
    assert list(tiny_volume.iterdir()) == [], "an empty folder never takes a volume's place"


def _fail(monkeypatch: pytest.MonkeyPatch, name: str, number: int, nth: int = 1) -> None:
    """Let the nth call of os.<name> fail with an errno, as the kernel would."""
    real, calls = getattr(os, name), []

    def failing(*words, **named):
        calls.append(1)
        if len(calls) == nth:
            raise OSError(number, os.strerror(number))
        return real(*words, **named)

    monkeypatch.setattr(os, name, failing)


@pytest.mark.parametrize("number, error", [(errno.EIO, VolumeFailed), (errno.ENOSPC, VolumeFull)])
@pytest.mark.parametrize("call, nth", [("write", 1), ("write", 2), ("fsync", 1), ("fsync", 2), ("rename", 1)])
def test_each_step_that_fails_leaves_nothing(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, call: str, nth: int, number: int, error: type
) -> None:
    store = instance.store()
    made = encode(ct_dataset(6))
    arrival = Arrival(made.dataset, made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid)
    with monkeypatch.context() as patch:
        _fail(patch, call, number, nth)
        with pytest.raises(error) as raised:
            store.store(arrival)
    assert raised.value.status == OUT_OF_RESOURCES
    root = instance.volumes.tier(1)[0].root
    assert _objects(root) == [] and not list((root / "incoming").iterdir())
    assert instance.retrieve().wanted({"SOPInstanceUID": [made.sop_instance_uid]}) == []
    assert store.store(arrival) == "stored", "the next sending is taken"


def test_a_foreign_disk_in_the_volumes_place_is_refused(instance: Instance) -> None:
    root = instance.volumes.tier(1)[0].root
    identity = (root / "volume.json").read_text()
    (root / "volume.json").unlink()
    with pytest.raises(VolumeMissing):
        instance.volumes.tier(1)[0].require_present()
    (root / "volume.json").write_text(identity)
    instance.volumes.tier(1)[0].require_present()
