"""What is mounted where, and what may be a volume."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacs.errors import UsageError
from pacs.storage import mounts
from pacs.storage.mounts import mount_of, require_suitable

MOUNTINFO = r"""
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw - proc proc rw
30 22 8:16 / /srv/pacs/state rw,nodev,noatime - ext4 /dev/sdb rw,errors=remount-ro
31 22 8:16 /tier1 /srv/pacs/tier1 rw,nodev,noatime - ext4 /dev/sdb rw,errors=remount-ro
32 22 0:40 / /srv/nas rw,relatime - nfs4 nas:/export rw,sync,vers=4.2,hard,proto=tcp
33 22 0:41 / /srv/soft rw,relatime - nfs4 nas:/export rw,vers=4.2,soft,proto=tcp
34 22 0:42 / /srv/smb rw,relatime - cifs //nas/share rw,vers=3.1.1
35 22 0:43 / /srv/mem rw - tmpfs tmpfs rw
36 22 0:44 / /srv/ssh rw - fuse.sshfs me@nas: rw
37 22 8:32 / /srv/a\040disk ro,relatime - xfs /dev/sdc rw
38 22 8:48 / /srv/fat rw - vfat /dev/sdd rw
39 22 8:64 / /srv/failed rw - ext4 /dev/sde ro
40 35 8:80 / /srv/mem rw - xfs /dev/sdf rw
"""


@pytest.fixture(autouse=True)
def these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTINFO.strip() + "\n")
    monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "mountinfo")


@pytest.mark.parametrize(
    ("folder", "source", "kind"),
    [
        ("/home/x", "/dev/sda1", "local"), ("/srv/pacs/state", "/dev/sdb", "local"),
        ("/srv/pacs/tier1/objects", "/dev/sdb", "local"), ("/srv/nas/pacs", "nas:/export", "nfs"),
        ("/srv/smb", "//nas/share", "smb"), ("/srv/pacs/statement", "/dev/sda1", "local"),
        ("/srv/mem", "/dev/sdf", "local"),
    ],
)  # fmt: skip
def test_a_folder_is_on_the_mount_above_it_that_came_last(folder: str, source: str, kind: str) -> None:
    found = mount_of(Path(folder))
    assert (found.source, found.kind) == (source, kind)
    assert require_suitable(found, Path(folder)) == kind


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("/proc/1", "type proc"), ("/srv/ssh", "FUSE file system .sshfs."), ("/srv/a disk", "mounted read-only"),
        ("/srv/fat", "type vfat"), ("/srv/failed/x", "mounted read-only"),
    ],
)  # fmt: skip
def test_what_keeps_no_promise_is_refused_with_what_to_do(folder: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        require_suitable(mount_of(Path(folder)), Path(folder))


def test_memory_is_no_disk(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text("1 0 0:43 / / rw - tmpfs tmpfs rw\n")
    with pytest.raises(UsageError, match="in memory"):
        require_suitable(mount_of(Path("/x")), Path("/x"))


def test_nfs_receives_only_hard_and_sync() -> None:
    assert mount_of(Path("/srv/nas")).why_it_may_not_receive == ""
    assert "hard and sync" in mount_of(Path("/srv/soft")).why_it_may_not_receive
    assert "SMB" in mount_of(Path("/srv/smb")).why_it_may_not_receive
    assert mount_of(Path("/srv/pacs/tier1")).why_it_may_not_receive == ""
