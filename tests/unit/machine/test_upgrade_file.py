"""An upgrade file from the build's packer to a slot; and every way in which a file is refused before anything is."""

from __future__ import annotations

import os
import random
import stat
import subprocess
from pathlib import Path

import pytest

from packer.upgrade import ReleaseKey, pack, release_key
from pacs.errors import UsageError
from pacs.machine import slot_writing, upgrade_file
from pacs.machine.commands import MachineError
from pacs.machine.upgrade_file import UpgradeFile
from pacs.model.upgrade import PIECE_BYTES, System

_SYSTEM = System("1.3.0", 4, 17)
_KEY = ReleaseKey(Path("none"), bytes(range(32)))
_TRUSTED = {"release": bytes.fromhex(_KEY.public)}
_PIECES = 12


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A slot's image: some pieces of noise, some of zeros, some of holes."""
    path = tmp_path / "root.raw"
    chance = random.Random(1)
    with path.open("wb") as file:
        file.truncate(_PIECES * PIECE_BYTES)
        for number in (0, 3, 4, 10):
            file.seek(number * PIECE_BYTES)
            file.write(chance.randbytes(PIECE_BYTES))
        file.seek(7 * PIECE_BYTES)
        file.write(bytes(PIECE_BYTES))
    return path


@pytest.fixture
def packed(root: Path, tmp_path: Path) -> Path:
    target = tmp_path / "x.upgrade"
    pack(root, target, _SYSTEM, 0, _KEY)
    return target


@pytest.fixture
def slot(tmp_path: Path) -> Path:
    """A slot with something else on it."""
    path = tmp_path / "slot"
    path.write_bytes(random.Random(2).randbytes(_PIECES * PIECE_BYTES))
    return path


def _open(path: Path) -> UpgradeFile:
    return upgrade_file.open_file(path, _TRUSTED)


def test_a_slot_becomes_what_was_packed(packed: Path, root: Path, slot: Path) -> None:
    opened = _open(packed)
    assert (opened.manifest.system, opened.signer) == (_SYSTEM, "release")
    assert [number for number, _digest in opened.manifest.pieces] == [0, 3, 4, 10]
    opened.check_payload()
    slot_writing.write(slot, opened)
    assert slot.read_bytes() == root.read_bytes()


def test_the_same_is_packed_into_the_same_file(packed: Path, root: Path, tmp_path: Path) -> None:
    pack(root, tmp_path / "again.upgrade", _SYSTEM, 0, _KEY)
    assert (tmp_path / "again.upgrade").read_bytes() == packed.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.upgrade", "root.raw", "x.upgrade"]


def test_one_who_was_ended_goes_on_and_leaves_no_file_system_before(packed: Path, root: Path, slot: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(what: str, done: int, _total: int) -> None:
        if what.startswith("writing") and done >= 5 * PIECE_BYTES:
            raise Killed

    with pytest.raises(Killed):
        slot_writing.write(slot, _open(packed), kill)
    half = slot.read_bytes()
    assert half[:PIECE_BYTES] == bytes(PIECE_BYTES)  # nothing that boots, or mounts
    assert half != root.read_bytes()
    slot_writing.write(slot, _open(packed))
    assert slot.read_bytes() == root.read_bytes()


@pytest.mark.parametrize("piece", [4, 8])
def test_what_does_not_come_back_from_the_disk_is_noticed(packed: Path, slot: Path, piece: int) -> None:
    """Whether the piece holds something or, as the second, zeros."""
    opened = _open(packed)
    slot_writing.write(slot, opened)
    with slot.open("r+b") as file:
        file.seek(piece * PIECE_BYTES + 5)
        file.write(b"\xff\x00")
    with pytest.raises(MachineError, match="does not come back"):
        slot_writing.compare(slot, opened)


@pytest.mark.parametrize("at", [0.1, 0.5, 0.999])
def test_a_file_that_is_cut_short_is_refused(packed: Path, at: float) -> None:
    os.truncate(packed, int(packed.stat().st_size * at) - 11_000)
    with pytest.raises(UsageError, match="Nothing was touched"):
        _open(packed).check_payload()


def test_a_changed_payload_is_refused(packed: Path, slot: Path) -> None:
    before = slot.read_bytes()
    opened = _open(packed)
    with packed.open("r+b") as file:
        file.seek(opened.payload_offset + opened.manifest.payload_bytes // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(UsageError, match="damaged"):
        _open(packed).check_payload()
    assert slot.read_bytes() == before


def test_a_changed_manifest_is_refused(packed: Path) -> None:
    content = packed.read_bytes()
    assert content.count(b'"version": "1.3.0"') == 1
    packed.write_bytes(content.replace(b'"version": "1.3.0"', b'"version": "1.3.9"'))
    with pytest.raises(UsageError, match="not signed by a key that this appliance trusts"):
        _open(packed)


def test_another_builders_file_is_taken_only_after_a_persons_word(packed: Path, root: Path, tmp_path: Path) -> None:
    other = ReleaseKey(Path("none"), b"2" * 32)
    pack(root, packed, _SYSTEM, 0, other)
    baked, data = tmp_path / "baked", tmp_path / "data"
    baked.mkdir()
    (data / "config").mkdir(parents=True)
    (baked / "release.pub").write_text(_KEY.public + "\n")
    with pytest.raises(UsageError, match="pacs upgrade trust"):
        upgrade_file.open_file(packed, upgrade_file.trusted_keys(data, baked))
    (tmp_path / "other.pub").write_text(other.public + "\n")
    name = upgrade_file.trust(data, tmp_path / "other.pub")
    assert upgrade_file.open_file(packed, upgrade_file.trusted_keys(data, baked)).signer == name


def test_what_is_no_key_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "x.pub").write_text("-----BEGIN PUBLIC KEY-----\n")
    with pytest.raises(UsageError, match="no key"):
        upgrade_file.trust(tmp_path, tmp_path / "x.pub")
    assert upgrade_file.trusted_keys(tmp_path, tmp_path) == {}


@pytest.mark.parametrize("content", [b"", b"x" * 10_240, bytes(10_240)])
def test_what_is_no_upgrade_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "no.upgrade"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="no upgrade file|cannot be read"):
        _open(path)


def test_the_builders_key_is_made_once_and_is_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("PACS_RELEASE_KEY", raising=False)
    made = release_key()
    assert made.is_new
    assert stat.S_IMODE(made.file.stat().st_mode) == 0o600
    again = release_key()
    assert (again.public, again.is_new) == (made.public, False)
    monkeypatch.setenv("PACS_RELEASE_KEY", str(made.file))
    assert release_key().public == made.public


def _system(folder: Path, *names: str) -> Path:
    for name in ("etc/pacs", "boot", "var/lib/pacs", "etc/systemd/network"):
        (folder / name).mkdir(parents=True)
    (folder / "etc/hostname").write_text(f"{folder.name}\n")
    (folder / "etc/fstab").write_text("UUID=1 / ext4 noatime 0 1\nUUID=2 /boot/efi vfat nofail 0 2\n")
    for name in names:
        (folder / "etc/systemd/network" / name).write_text(folder.name)
    return folder


def test_a_new_system_is_fitted_to_where_it_is(tmp_path: Path) -> None:
    running, new = _system(tmp_path / "old", "10.network", "20-site.network"), _system(tmp_path / "new", "10.network")
    (running / "var/lib/pacs/volumes.json").write_text("the set")
    (running / "etc/machine-id").write_text("0123\n")
    (new / "etc/machine-id").write_text("")
    (new / "boot/pacs.cfg.in").write_text("set root=$slot_@SLOT@\nlinux root=PARTUUID=@PARTUUID@ $trial_@SLOT@\n")
    slot_writing.furnish(new, "b", "uuid-4", b"{}", running)
    assert (new / "boot/pacs.cfg").read_text() == "set root=$slot_b\nlinux root=PARTUUID=uuid-4 $trial_b\n"
    assert (new / "etc/fstab").read_text() == "PARTUUID=uuid-4 / ext4 noatime 0 1\nUUID=2 /boot/efi vfat nofail 0 2\n"
    assert (new / "etc/hostname").read_text() == "old\n"
    assert (new / "etc/machine-id").read_text() == "0123\n"
    assert (new / "var/lib/pacs/volumes.json").read_text() == "the set"
    assert (new / "etc/systemd/network/10.network").read_text() == "new"
    assert (new / "etc/systemd/network/20-site.network").read_text() == "old"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_a_real_file_system_is_written_and_fitted(tmp_path: Path) -> None:
    from pacs.machine.slots import Slot

    new = _system(tmp_path / "new")
    (new / "boot/pacs.cfg.in").write_text("@SLOT@ @PARTUUID@\n")
    image, target, packed = tmp_path / "root.raw", tmp_path / "slot", tmp_path / "x.upgrade"
    for path in (image, target):
        with path.open("wb") as file:
            file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-d", new, image], check=True)
    pack(image, packed, _SYSTEM, 0, _KEY)
    slot_writing.write(target, _open(packed))
    device = subprocess.run(
        ["losetup", "--find", "--show", target], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        slot_writing.fit(Slot("b", device, "uuid-4", 64 << 20), b"{}", _system(tmp_path / "old"))
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    asked = subprocess.run(["debugfs", "-R", "cat /boot/pacs.cfg", target], capture_output=True, text=True, check=True)
    assert asked.stdout == "b uuid-4\n"
    subprocess.run(["e2fsck", "-fn", target], check=True, capture_output=True)
