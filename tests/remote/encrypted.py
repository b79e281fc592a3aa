"""What is tried of encrypted volumes in a kernel that has dm-crypt, on disks of its own: a program for uml.py.

    python3 -m tests.remote.encrypted first|second

To be switched off is to be unmounted and closed. The TPM is swtpm, asked as systemd asks it over TCP. It prints a line
of JSON for each trial; `second` runs after the last disk was enlarged, and knows the sheet from the file /far/sheet.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pacs.backup.master_key import MasterKey
from pacs.errors import UsageError, WrongKey
from pacs.machine import disk, encryption, filesystem, kept_settings, seeds, storage, unlocking
from pacs.machine.kept_settings import Kept
from pacs.storage.volume import VolumeIdentity, read_identity

FAR = Path("/far")
_HOME = Path("/tmp/appliance")
_DISKS = ("/dev/ubda", "/dev/ubdb", "/dev/ubdc")
_FOURTH = "/dev/ubdd"
_IMAGE = os.urandom(1 << 20)


@dataclass
class Appliance:
    """An appliance on some of the disks."""

    places: storage.Places
    seed: str = ""
    _tpm: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    def on(cls, *devices: str) -> Appliance:
        home = _HOME / str(time.monotonic_ns())
        for name in ("state", "tier1", "tier2"):
            (home / "srv" / name).mkdir(parents=True)
        return cls(
            storage.Places(
                home / "srv", home / "volumes.json", home / "run/storage.json", disks=frozenset(devices),
                headers=home / "headers", carried=home / "carried.tar",
            )
        )  # fmt: skip

    def start(self) -> storage.Answer:
        seeds.CLOUD_CONFIG.parent.mkdir(exist_ok=True)
        seeds.CLOUD_CONFIG.write_text(json.dumps({"pacs": {"encrypt_volumes": self.seed} if self.seed else {}}))
        return storage.start(self.places)

    def started(self) -> None:
        answer = self.start()
        assert answer.ready, answer

    def off(self) -> None:
        for mounted in sorted(self.places.volumes.iterdir(), key=lambda path: path.name == "state"):
            if filesystem.is_mounted(mounted):
                filesystem.unmount(mounted)
        for each in Path("/dev/mapper").glob("pacs-*"):
            encryption.close(each.name.removeprefix("pacs-"))

    def plug_tpm(self, name: str) -> None:
        """Take the TPM out that there is, and put another one in; none if name is empty."""
        device = encryption._TPM_DEVICE
        while self._tpm:
            self._tpm[-1].terminate()
            self._tpm.pop().wait()
        device.unlink(missing_ok=True)
        for mark in Path("/run/pacs-machine/tpm").glob("*"):
            mark.unlink()
        if name:
            (FAR / name).mkdir(exist_ok=True)
            words = ["swtpm", "socket", "--tpm2", "--server", "type=tcp,port=2321", "--ctrl", "type=tcp,port=2322"]
            words += ["--tpmstate", f"dir={FAR / name}", "--flags", "not-need-init,startup-clear"]
            self._tpm.append(subprocess.Popen(words))
            time.sleep(2)
            device.touch()

    def put(self) -> None:
        for tier in ("tier1", "tier2"):
            (self.places.volumes / tier / "image").write_bytes(_IMAGE)

    def has(self) -> bool:
        return all((self.places.volumes / tier / "image").read_bytes() == _IMAGE for tier in ("tier1", "tier2"))

    @property
    def sheet(self) -> MasterKey:
        found = unlocking.sheet_of(self.places.state)
        assert found
        return found


def kinds(*devices: str) -> list[str]:
    words = ("blkid", "-p", "-o", "value", "-s", "TYPE")
    return [subprocess.run([*words, each], capture_output=True, text=True).stdout.strip() for each in devices]


def begins_with(*devices: str) -> list[str]:
    return [hashlib.sha256(Path(each).open("rb").read(8 << 20)).hexdigest() for each in devices]


def header_of(device: str) -> bytes:
    with open(device, "rb") as file:
        return file.read(encryption.OFFSET_BYTES)


def make_blank(*devices: str) -> None:
    for each in devices:
        with open(each, "r+b") as file:
            file.write(bytes(8 << 20))
            file.seek(-(2 << 20), os.SEEK_END)
            file.write(bytes(2 << 20))


def an_empty_set_is_claimed_anew_and_keeps_its_settings() -> None:
    site = Appliance.on(*_DISKS)
    site.started()
    assert kinds(*_DISKS) == ["ext4"] * 3
    kept_settings.save(site.places.state, Kept(values={"encrypt_volumes": "sheet", "host_name": "archive"}))
    keys = site.places.state / "config/ssh/admin"
    keys.write_text("ssh-ed25519 AAAA x\n")
    site.off()
    site.started()
    assert kinds(*_DISKS) == ["crypto_LUKS"] * 3
    assert kept_settings.load(site.places.state).values["host_name"] == "archive"
    assert keys.exists()
    assert not site.places.carried.exists()
    site.off()
    make_blank(*_DISKS)


def one_with_an_image_stays_as_it_is() -> None:
    site = Appliance.on(*_DISKS)
    site.started()
    kept_settings.save(site.places.state, Kept(values={"encrypt_volumes": "tpm"}))
    site.put()
    site.off()
    site.started()
    assert kinds(*_DISKS) == ["ext4"] * 3
    assert site.has()
    site.off()
    make_blank(*_DISKS)


def without_a_tpm_it_waits_for_the_sheet_and_for_no_other() -> None:
    site = Appliance.on(*_DISKS)
    site.seed = "sheet"
    site.started()
    site.put()
    sheet = site.sheet
    site.off()
    answer = site.start()
    assert not answer.ready
    assert len(answer.problems) == 3
    assert all("sudo pacs machine unlock" in each for each in answer.problems)
    before = begins_with(*_DISKS)
    try:
        unlocking.open_by_sheet(storage.look(site.places), MasterKey.make())
        raise AssertionError("another sheet opens it")
    except WrongKey as error:
        assert "nothing was touched" in str(error)
    assert begins_with(*_DISKS) == before
    assert unlocking.open_by_sheet(storage.look(site.places), sheet) == list(_DISKS)
    site.started()
    assert site.has()
    try:
        unlocking.open_by_sheet(storage.look(site.places), sheet)
        raise AssertionError("something is locked")
    except UsageError:
        pass
    site.off()
    make_blank(*_DISKS)


def the_tpm_opens_it_another_tpm_does_not_and_then_does() -> None:
    site = Appliance.on(*_DISKS)
    site.seed = "tpm"
    site.plug_tpm("tpm1")
    site.started()
    kept_settings.save(site.places.state, Kept(values={"encrypt_volumes": "tpm"}))
    state = next(each for each in storage.look(site.places) if each.label == "pacs-state")
    assert encryption.slots(state.backing).tpm
    assert sum(bool(encryption.slots(each).tpm) for each in _DISKS) == 1
    site.put()
    sheet = site.sheet
    for _boot in range(2):
        site.off()
        before = header_of(state.backing)
        site.started()
        assert site.has()
    assert header_of(state.backing) == before, "what is in order is not written again"
    site.off()
    site.plug_tpm("tpm2")
    assert not site.start().ready
    unlocking.open_by_sheet(storage.look(site.places), sheet)
    site.started()
    site.off()
    site.started()
    assert site.has()
    site.off()
    site.plug_tpm("tpm1")
    assert not site.start().ready, "the TPM before opens nothing any more"
    site.plug_tpm("tpm2")
    site.started()
    (FAR / "sheet").write_text(sheet.text)


def a_new_sheet_opens_every_volume_and_the_old_one_none() -> None:
    site = Appliance.on(*_DISKS)
    site.off()
    site.plug_tpm("tpm2")
    site.started()
    old, new = site.sheet, MasterKey.make()
    (site.places.state / "config/keys/sheet.key").write_text(f"{new.text}\n")
    assert storage.bring_locks_in_order(site.places, storage.look(site.places)) == []
    assert all(encryption.fits(each, new.text) and not encryption.fits(each, old.text) for each in _DISKS)
    assert len(list(site.places.headers.glob("*.luks"))) == 3
    (FAR / "sheet").write_text(new.text)
    site.off()


def an_added_disk_is_opened_by_its_key_at_each_start() -> None:
    site = Appliance.on(*_DISKS, _FOURTH)
    site.started()
    where = disk.add(site.places, _FOURTH, "more", encrypted=True)
    assert kinds(_FOURTH) == ["crypto_LUKS"]
    own = read_identity(site.places.state)
    _make_volume(where, own)
    site.off()
    site.started()
    assert (where / "x").read_text() == "more"
    site.off()


def _make_volume(where: Path, own: VolumeIdentity) -> None:
    from pacs.storage.volume import create_identity

    create_identity(where, ("tier2",), own.appliance_id)
    (where / "x").write_text("more")


def a_lost_header_comes_back_from_its_copy() -> None:
    site = Appliance.on(*_DISKS, _FOURTH)
    site.started()
    found = next(each for each in storage.look(site.places) if each.label == "pacs-tier1")
    site.off()
    with open(found.backing, "r+b") as file:
        file.write(bytes(encryption.OFFSET_BYTES))
    assert not site.start().ready
    copy = encryption.header_copy(site.places.headers, found.fs_uuid)
    words = ["cryptsetup", "luksHeaderRestore", "--batch-mode", "--header-backup-file", str(copy), found.backing]
    subprocess.run(words, check=True)
    site.started()
    site.off()


def a_claim_that_was_cut_short_is_made_anew() -> None:
    """Cut between a disk's header and its file system, the volume still open."""
    make_blank(_FOURTH)
    site = Appliance.on(_FOURTH)
    site.seed = "sheet"
    real = filesystem.make

    def cut(device: str, role: str, fs_uuid: str) -> None:
        raise KeyboardInterrupt

    filesystem.make = cut
    try:
        site.start()
        raise AssertionError("it was not cut")
    except KeyboardInterrupt:
        filesystem.make = real
    assert kinds(_FOURTH) == ["crypto_LUKS"]
    site.started()
    site.off()
    make_blank(_FOURTH)


def an_enlarged_disk_is_filled_and_all_is_there_on_a_new_system_disk() -> None:
    site = Appliance.on(*_DISKS)
    sheet = MasterKey.typed((FAR / "sheet").read_text())
    answer = site.start()
    assert not answer.ready, "another machine, without its TPM"
    unlocking.open_by_sheet(storage.look(site.places), sheet)
    site.started()
    image = (site.places.volumes / "tier2/image").read_bytes()
    assert hashlib.sha256(image).hexdigest() == (FAR / "digest").read_text()
    found = os.statvfs(site.places.volumes / "tier2")
    room_bytes = found.f_blocks * found.f_frsize
    largest = max(Path(f"/sys/class/block/{Path(each).name}/size").read_text() for each in _DISKS)
    assert room_bytes > int(largest) * 512 * 0.9, (room_bytes, largest)
    assert storage.grow(site.places) == ([], [])
    site.off()


FIRST: tuple[Callable[[], None], ...] = (
    an_empty_set_is_claimed_anew_and_keeps_its_settings,
    one_with_an_image_stays_as_it_is,
    without_a_tpm_it_waits_for_the_sheet_and_for_no_other,
    a_claim_that_was_cut_short_is_made_anew,
    the_tpm_opens_it_another_tpm_does_not_and_then_does,
    a_new_sheet_opens_every_volume_and_the_old_one_none,
    an_added_disk_is_opened_by_its_key_at_each_start,
    a_lost_header_comes_back_from_its_copy,
)
SECOND: tuple[Callable[[], None], ...] = (an_enlarged_disk_is_filled_and_all_is_there_on_a_new_system_disk,)


def main(which: str) -> None:
    storage.WAIT_FOR_DISKS_S = 0.0
    (FAR / "digest").write_text(hashlib.sha256(_IMAGE).hexdigest()) if which == "first" else None
    for trial in FIRST if which == "first" else SECOND:
        began = time.monotonic()
        try:
            trial()
            problem = ""
        except Exception:
            problem = traceback.format_exc()
        print(json.dumps({"name": trial.__name__, "problem": problem, "took_s": round(time.monotonic() - began, 1)}))
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
