"""The layout of the system disk and GRUB's two images in it."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path

import pytest

from packer.base import layout
from packer.base.bootloader import boot_sector, core_image, environment_block, install_bios
from packer.base.disk import recipe_digest
from packer.errors import BuildError
from packer.mirrors import os_release
from packer.preflight import check_tools


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    check_tools()
    path = tmp_path / "disk.raw"
    with path.open("wb") as stream:
        stream.truncate(layout.DISK_SIZE_MIB * layout.MIB)
    script = layout.sfdisk_script(layout.Identifiers.of("recipe"))
    subprocess.run(["sfdisk", "--quiet", path], input=script, text=True, check=True)
    return path


def test_the_partition_table_is_sound(disk: Path) -> None:
    assert (
        "No errors detected"
        in subprocess.run(["sfdisk", "--verify", disk], capture_output=True, text=True, check=True).stdout
    )
    told = subprocess.run(["sfdisk", "--json", disk], capture_output=True, text=True, check=True).stdout
    table = json.loads(told)["partitiontable"]
    assert [part["name"] for part in table["partitions"]] == ["bios", "esp", "root-a", "root-b"]
    sizes = [part["size"] * layout.SECTOR_BYTES // layout.MIB for part in table["partitions"]]
    assert sizes == [1, layout.ESP_SIZE_MIB, layout.ROOT_SIZE_MIB, layout.ROOT_SIZE_MIB]
    assert all(part["start"] % 2048 == 0 for part in table["partitions"])


def test_bios_grub_leaves_the_partition_table_alone(disk: Path, tmp_path: Path) -> None:
    before = subprocess.run(["sfdisk", "--dump", disk], capture_output=True, check=True).stdout
    boot, core = tmp_path / "boot.img", tmp_path / "core.img"
    boot.write_bytes(b"\xeb" + bytes(511))
    core.write_bytes(b"core" + bytes(29_000))
    install_bios(disk, boot, core)
    assert subprocess.run(["sfdisk", "--dump", disk], capture_output=True, check=True).stdout == before
    with disk.open("rb") as stream:
        stream.seek(layout.BIOS_GRUB_START_MIB * layout.MIB)
        assert stream.read(4) == b"core"


def test_boot_sector_knows_where_the_core_is() -> None:
    code = boot_sector(bytes(range(256)) * 2, 2048)
    assert len(code) == 440
    assert struct.unpack_from("<Q", code, 0x5C) == (2048,)
    assert code[0x66:0x68] == b"\x90\x90"


@pytest.mark.parametrize("size_bytes", [512, 513, 29_696, 29_697])
def test_core_image_knows_its_own_rest(size_bytes: int) -> None:
    image = core_image(b"\xff" * size_bytes, 2048)
    assert len(image) % 512 == 0
    start, count, segment = struct.unpack_from("<QHH", image, 0x1F4)
    assert (start, count, segment) == (2049, len(image) // 512 - 1, 0x0820)


def test_a_core_image_that_does_not_fit_is_refused() -> None:
    with pytest.raises(BuildError):
        core_image(bytes(layout.MIB + 1), 2048)


def test_identifiers_follow_the_recipe() -> None:
    one, same, other = (layout.Identifiers.of(name) for name in ("a", "a", "b"))
    assert one == same
    assert one != other
    assert len({one.root, one.disk, *one.partitions}) == 6
    assert one.esp == f"{one.esp_serial:08X}"[:4] + "-" + f"{one.esp_serial:08X}"[4:]


def test_without_a_mirror_to_ask_the_recipe_still_has_a_digest() -> None:
    assert recipe_digest(None) == recipe_digest(None)


def test_os_release_is_read() -> None:
    assert "ID" in os_release()


def test_grub_names_the_partitions_by_their_places() -> None:
    rows = layout.sfdisk_script(layout.Identifiers.of("recipe")).splitlines()[2:]
    places = {row.rpartition("name=")[2]: number for number, row in enumerate(rows, start=1)}
    folder = Path(layout.__file__).parent
    chosen = (folder / "boot/grub.cfg").read_text()
    assert f"set slot_a=$disk,gpt{places['root-a']}\n" in chosen
    assert f"set slot_b=$disk,gpt{places['root-b']}\n" in chosen
    assert f"-p '(,gpt{places['esp']})/grub'" in (folder / "customize.sh").read_text()


def test_grubs_variables_are_as_long_as_grub_wants_them() -> None:
    block = environment_block(slot="a", **{"try": ""})
    assert block.startswith(b"# GRUB Environment Block\nslot=a\ntry=\n#")
    assert len(block) == 1024
