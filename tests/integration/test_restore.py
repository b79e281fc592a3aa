"""Restore: an archive is destroyed, and comes back from a folder by the recovery sheet; what is wrong is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pacs.backup.keys import MasterKey
from pacs.backup.mark import MARK
from tests.faults.process import wait_for
from tests.fix_instance import Dev
from tests.peer import RawObject
from tests.restoring import QUICK, Archive, contents, given_back, is_whole_again, rows, settings_and_keys
from tests.synthetic import ct_study


def _raw(seed: int, count: int = 3) -> list[RawObject]:
    return [RawObject.of(each) for each in ct_study(seed, count)]


@pytest.fixture
def repository(short_folder: Path, request: pytest.FixtureRequest) -> Path:
    folder = short_folder / f"repository-{request.node.name[:20]}"
    folder.mkdir()
    return folder


@pytest.fixture
def archive(new_dev: Callable[..., Dev], repository: Path) -> Archive:
    """An archive with three studies, a device and a rule, in the repository."""
    made = Archive.begin(new_dev(**QUICK), repository)
    for seed in (1, 2, 3):
        made.send(_raw(seed))
    made.dev.pacs(
        "device", "add", "CT room 2", "--ae-title", "CT2", "--host", "192.0.2.7", "--port", "104"
    )  # fmt: skip
    return made


def test_everything_comes_back(archive: Archive, new_dev: Callable[..., Dev]) -> None:
    archive.wait_for_point()
    wait_for(lambda: "CT2" in json.dumps(rows(archive.dev, "SELECT * FROM device")), "no device")
    before = contents(archive.dev)
    kept = settings_and_keys(archive.dev.data)
    objects = [raw for seed in (1, 2, 3) for raw in _raw(seed)]
    archive.destroy()

    new = new_dev(**QUICK)
    said = archive.restore(new).stdout
    assert "3 studies, 9 objects" in said
    assert not (new.data / MARK).exists()
    now = settings_and_keys(new.data)
    assert {name: now.get(name) for name in kept if not name.startswith("journal/")} == {
        name: content for name, content in kept.items() if not name.startswith("journal/")
    }
    new.start()
    assert contents(new) == before
    assert given_back(new, objects) == {raw.sop_instance_uid: raw.dataset for raw in objects}
    archive.dev = new
    archive.send(_raw(4))
    wait_for(lambda: is_whole_again(new), f"it does not come back: {new.log()[-2000:]}")
    lonely = rows(
        new,
        "SELECT object_key FROM object o WHERE NOT EXISTS (SELECT FROM copy c JOIN volume v USING (volume_id)"
        " WHERE c.object_key = o.object_key AND c.state = 'good' AND v.tier < 4)",
    )
    assert lonely == []
    assert "100 % is back" in new.pacs("restore", "status").stdout
    assert new.pacs("reconcile", "run").returncode == 0
    # It goes on as the archive that it is: new studies reach the repository, and it can be destroyed again.
    archive.wait_for_point()
    archive.destroy()
    third = new_dev(**QUICK)
    assert "4 studies, 12 objects" in archive.restore(third).stdout


def test_a_wrong_sheet_a_mistyped_one_and_too_little_room_touch_nothing(
    archive: Archive, new_dev: Callable[..., Dev], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.wait_for_point()
    archive.destroy()
    new = new_dev(**QUICK)
    right = archive.sheet.read_text()
    archive.sheet.write_text(MasterKey.make().text)
    refused = archive.restore(new, check=False)
    assert refused.returncode == 12 and "does not open this repository" in refused.stderr
    archive.sheet.write_text(("3" if right[0] == "2" else "2") + right[1:])
    refused = archive.restore(new, check=False)
    assert refused.returncode == 2 and "Group 1" in refused.stderr
    assert not new.data.exists()
    archive.sheet.write_text(right)
    looked = archive.restore(new, "--dry-run").stdout
    assert "recovery points" in looked and "Nothing was touched" in looked
    assert not new.data.exists()


def test_an_archive_is_not_restored_over_another(archive: Archive, new_dev: Callable[..., Dev]) -> None:
    archive.wait_for_point()
    other = new_dev(**QUICK).start()
    running = archive.restore(other, check=False)
    assert running.returncode == 2 and "End it first" in running.stderr
    from tests import peer

    assert set(peer.store(other.dicom_port, _raw(9))) == {0}
    other.stop()
    refused = archive.restore(other, check=False)
    assert refused.returncode == 8 and "holds images" in refused.stderr
    other.start()
    assert given_back(other, _raw(9)) == {raw.sop_instance_uid: raw.dataset for raw in _raw(9)}
    shutil.rmtree(archive.repository / "points")
    assert "no recovery point" in archive.restore(new_dev(), check=False).stderr
