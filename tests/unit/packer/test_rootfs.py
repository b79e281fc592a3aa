"""A small disk, looked into from outside: manifest, comparison, and the one file that is written into it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from packer import compare
from packer.base import layout
from packer.errors import BuildError
from packer.rootfs import Entry, open_rootfs
from packer.tree import entries_of, read_tree, tree_of, write_tree

EPOCH_S = 1_700_000_000


def _tree(folder: Path) -> Path:
    """What a root file system has that is not plain: links, blanks in names, a closed folder, an empty file."""
    (folder / "etc").mkdir(parents=True)
    (folder / "usr/lib").mkdir(parents=True)
    (folder / "usr/lib/os-release").write_text("ID=debian\n")
    (folder / "etc/os-release").symlink_to("../usr/lib/os-release")
    (folder / "lib").symlink_to("usr/lib")
    (folder / "etc/with a blank").write_text("x")
    (folder / "etc/empty").touch()
    (folder / "etc/secret").mkdir(mode=0o700)
    (folder / "etc/secret/key").write_text("key")
    (folder / "etc/secret/key").chmod(0o600)
    return folder


def _disk(folder: Path, change: Callable[[Path], object] = lambda _: None) -> Path:
    """A disk with that tree in its first root slot."""
    folder.mkdir()
    root, disk = _tree(folder / "root"), folder / "disk.raw"
    change(root)
    with disk.open("wb") as stream:
        stream.truncate(layout.DISK_SIZE_MIB * layout.MIB)
    offset = layout.ROOT_A_START_MIB * layout.MIB
    options = f"offset={offset},nodiscard,root_owner=0:0"
    command = ["mkfs.ext4", "-q", "-d", root, "-O", layout.EXT4_FEATURES, "-E", options, disk, "8192k"]
    subprocess.run(command, check=True)
    return disk


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _disk(tmp_path_factory.mktemp("rootfs") / "one")


def test_the_manifest_has_everything_once(disk: Path, tmp_path: Path) -> None:
    with open_rootfs(disk, tmp_path) as root:
        found = {entry.path: entry for entry in entries_of(root)}
    assert {path for path in found if path.startswith("/")} == {
        "/etc", "/etc/empty", "/etc/os-release", "/etc/secret", "/etc/secret/key", "/etc/with a blank", "/lib", "/usr",
        "/usr/lib", "/usr/lib/os-release",
    }  # fmt: skip
    key = found["/etc/secret/key"]
    assert (key.mode, key.uid, key.size_bytes) == (0o100600, os.geteuid(), 3)
    assert key.digest == "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683"
    assert (found["/lib"].mode, found["/lib"].digest) == (0o120777, "usr/lib")
    assert found["/etc/secret"].mode == 0o040700
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_is_read_as_it_was_written(disk: Path, tmp_path: Path) -> None:
    with open_rootfs(disk) as root:
        entries = entries_of(root)
    write_tree(entries, tmp_path / "x.tree")
    assert read_tree(tmp_path / "x.tree") == tree_of(tmp_path / "x.tree") == entries
    assert tree_of(disk, tmp_path) == entries
    (tmp_path / "y.tree").write_text("0 0\n")
    with pytest.raises(BuildError, match="no manifest"):
        read_tree(tmp_path / "y.tree")


def test_links_are_followed_within_the_disk(disk: Path) -> None:
    with open_rootfs(disk) as root:
        assert root.text("/lib/os-release") == root.text("/etc/os-release") == "ID=debian\n"


def test_a_link_out_of_the_disk_does_not_lead_out(tmp_path: Path) -> None:
    def change(root: Path) -> None:
        (root / "out").symlink_to("/../../../etc/os-release")
        (root / "round").symlink_to("round")

    with open_rootfs(_disk(tmp_path / "disk", change)) as root:
        assert root.text("/out") == "ID=debian\n"
        with pytest.raises(BuildError, match="circles"):
            root.text("/round")


def test_a_file_is_written_into_the_disk(tmp_path: Path) -> None:
    disk = _disk(tmp_path / "disk")
    source = tmp_path / "source"
    for text in ("parts", "other parts"):  # the second in the place of the first
        source.write_text(text)
        with open_rootfs(disk) as root:
            root.write("/etc/parts", source, EPOCH_S)
            assert root.text("/etc/parts") == text
    with open_rootfs(disk) as root:
        (entry,) = [each for each in root.entries() if each.path == "/etc/parts"]
        assert (entry.mode, entry.uid, entry.gid, entry.size_bytes) == (0o100644, 0, 0, 11)
        subprocess.run(["e2fsck", "-fn", root.place], check=True, capture_output=True)


def test_a_disk_without_a_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no system"), open_rootfs(_disk(tmp_path / "disk", _without_system)):
        pass
    blank = tmp_path / "blank"
    with blank.open("wb") as stream:
        stream.truncate(layout.DISK_SIZE_MIB * layout.MIB)
    with pytest.raises(BuildError), open_rootfs(blank):
        pass


def _without_system(root: Path) -> None:
    (root / "etc/os-release").unlink()


def _changed(root: Path) -> None:
    (root / "etc/with a blank").write_text("y")
    (root / "etc/empty").chmod(0o666)
    (root / "etc/secret/key").unlink()
    (root / "etc/more").write_text("more")


def test_two_disks_of_the_same_tree_differ_in_nothing(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main([str(disk), str(_disk(tmp_path / "two"))]) == 0
    assert "0 differ, 0 more as they may" in capsys.readouterr().out


def test_what_differs_is_named(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "JUSTIFIED", (compare.Justified(r"/etc/with .*", "it holds the time"),))
    assert compare.main([str(disk), str(_disk(tmp_path / "two", _changed))]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[:-1] == [
        f"/etc/empty: 100644 {os.geteuid()}:{os.getegid()} and 100666 {os.geteuid()}:{os.getegid()}",
        "/etc/more: only in the second",
        "/etc/secret/key: only in the first",
        "/etc/with a blank: content (may be: it holds the time)",
    ]
    assert "3 differ, 1 more as they may" in said[-1]
    assert compare.main([str(tmp_path / "none"), str(disk)]) == 2


def test_what_lies_beside_the_root_slot_is_compared_too(disk: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.raw"
    subprocess.run(["cp", "--sparse=always", disk, other], check=True)
    with other.open("r+b") as stream:
        stream.seek((layout.ESP_START_MIB + 3) * layout.MIB)
        stream.write(b"grubenv")
    assert [each.path for each in compare.differences(tree_of(disk), tree_of(other))] == ["efi partition"]


def test_only_content_is_justified() -> None:
    """A path that may differ in what it holds may still not be missing, or somebody else's."""
    rows = compare.JUSTIFIED or (compare.Justified(r"/x", "why"),)
    for row in rows:
        assert row.why
    ours, theirs = Entry("/x", 0o100644, 0, 0, 1, "a"), Entry("/x", 0o100644, 0, 2100, 1, "b")
    assert [each.why for each in compare.differences([ours], [theirs])] == [""]


def test_the_page_has_the_table_of_the_code() -> None:
    page = (Path(__file__).parents[3] / "docs/reference/reproducible.md").read_text("utf-8")
    assert page.endswith(compare.reference())
