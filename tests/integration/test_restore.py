"""An archive is overwritten, then destroyed, and restored by its recovery sheet.

One archive serves all tests here. Its history: three studies (the good point), then everything is
overwritten (the bad point), then a study of which the log reaches the repository and the images do not.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pacs.backup.keys import MasterKey
from pacs.backup.mark import MARK
from pacs.backup.points import Point
from pacs.model import part10
from pacs.storage.names import repository_path
from tests import peer
from tests.faults.process import wait_for
from tests.fix_instance import Dev
from tests.mounted import file_system
from tests.peer import RawObject
from tests.restoring import (
    QUICK,
    Archive,
    Lost,
    check_of,
    contents,
    given_back,
    is_whole_again,
    living_archive,
    rows,
    settings_and_keys,
)
from tests.synthetic import ct_study

#: A whole life of an archive is lived for them.
pytestmark = pytest.mark.timeout(900)
STUDIES = 3


def _raw(seed: int, count: int = 3) -> list[RawObject]:
    return [RawObject.of(each) for each in ct_study(seed, count)]


GOOD = [raw for seed in range(1, STUDIES + 1) for raw in _raw(seed)]
AFTERWARDS, UNSHIPPED = _raw(8), _raw(9, 2)


# --- the end -------------------------------------------------------------------------------------------------------


@dataclass
class End:
    """What was, and what is left."""

    lost: Lost
    good: Point
    bad: Point
    contents: dict[str, list[str]]
    settings: dict[str, bytes]
    contents_at_the_end: dict[str, list[str]]


@pytest.fixture(scope="module")
def end(short_folder: Path) -> Iterator[End]:
    """Overwritten, then destroyed."""
    with living_archive(short_folder, GOOD) as living:
        yield _ended(living)


def _ended(living: Archive) -> End:
    good = living.wait_for_point()
    dev = living.dev
    was, settings = contents(dev), settings_and_keys(dev.data)
    _overwrite(dev)
    living.send(AFTERWARDS)
    bad = living.wait_for_point(after=good)
    objects, away = living.repository / "objects", living.repository / "objects-away"
    objects.rename(away)
    objects.touch()  # where no object goes; the log does
    assert set(peer.store(dev.dicom_port, UNSHIPPED, "CT2")) == {0}
    living.ship_all_log()
    at_the_end = contents(dev)
    living.destroy()
    objects.unlink()
    away.rename(objects)
    return End(Lost(living.repository, living.sheet), good, bad, was, settings, at_the_end)


def _overwrite(dev: Dev) -> None:
    """Ransomware: every object's file and what the database says of patients."""
    files = [path for tier in ("tier1", "tier2") for path in (dev.data / tier).rglob("*.dcm")]
    assert files
    for path in files:
        path.write_bytes(random.Random(1).randbytes(path.stat().st_size))
    rows(dev, "UPDATE patient SET patient_name = 'PAY', patient_id = 'PAY' || patient_key RETURNING 1 AS done")
    rows(dev, "DELETE FROM device RETURNING 1 AS done")


def test_what_is_wrong_is_refused_and_nothing_is_touched(end: End, new_dev: Callable[..., Dev], tmp_path: Path) -> None:
    new, right = new_dev(**QUICK), end.lost.sheet.read_text()
    sheet = tmp_path / "sheet.txt"
    lost = Lost(end.lost.repository, sheet)
    sheet.write_text(MasterKey.make().text)
    code, why = lost.refused(new)
    assert code == 12 and "does not open this repository" in why
    sheet.write_text(("3" if right[0] == "2" else "2") + right[1:])
    code, why = lost.refused(new)
    assert code == 2 and "Group 1" in why
    assert "no recovery point" in end.lost.refused(new, "--point", "20200101T000000_000Z")[1]
    assert "before 2020-01-01" in end.lost.refused(new, "--time", "2020-01-01T00:00")[1]
    assert "Restore from where?" in new.pacs("restore", check=False).stderr
    looked = new.pacs(*end.lost.words("--dry-run")).stdout
    assert "recovery points" in looked and "Nothing was touched" in looked
    assert not new.data.exists()


def test_an_archive_that_is_there_is_not_restored_over(end: End, new_dev: Callable[..., Dev]) -> None:
    other = new_dev(**QUICK).start()
    assert "End it first" in end.lost.refused(other)[1] or "Another `pacs dev`" in end.lost.refused(other)[1]
    assert set(peer.store(other.dicom_port, _raw(7))) == {0}
    other.stop()
    code, why = end.lost.refused(other)
    assert code == 8 and "holds images" in why
    assert not (other.data / MARK).exists()
    other.start()
    assert given_back(other, _raw(7)) == {raw.sop_instance_uid: raw.dataset for raw in _raw(7)}


def test_everything_of_the_last_good_point_comes_back(end: End, new_dev: Callable[..., Dev]) -> None:
    new = new_dev(**QUICK)
    said = end.lost.copy(end.lost.repository.with_name("copy")).restore(new, "--point", end.good.name)
    assert "3 studies, 9 objects" in said and "TESTER" in said
    assert not (new.data / MARK).exists()
    now = settings_and_keys(new.data)
    _assert_settings(end.settings, now)
    new.start()
    assert contents(new) == end.contents
    assert given_back(new, GOOD) == {raw.sop_instance_uid: raw.dataset for raw in GOOD}
    restored = Archive(new, end.lost.repository.with_name("copy"), end.lost.sheet)
    restored.send(_raw(4))
    wait_for(lambda: is_whole_again(new), f"it does not come back: {new.log()[-2000:]}", timeout_s=120)
    assert rows(new, _NOT_ON_OWN_VOLUMES) == []
    assert "100 % is back" in new.pacs("restore", "status").stdout
    assert check_of(new, "restore")[0] == "ok"
    assert new.pacs("reconcile", "run").returncode == 0
    # It goes on as the archive that it is: what is new reaches the repository, and it can be lost again.
    restored.wait_for_point()
    restored.destroy()
    third = new_dev(**QUICK)
    assert "4 studies, 12 objects" in Lost(restored.repository, restored.sheet).restore(third)
    shutil.rmtree(restored.repository)


_NOT_ON_OWN_VOLUMES = (
    "SELECT object_key FROM object o WHERE NOT EXISTS (SELECT FROM copy c JOIN volume v USING (volume_id)"
    " WHERE c.object_key = o.object_key AND c.state = 'good' AND v.tier < 4)"
)


def _assert_settings(before: dict[str, bytes], now: dict[str, bytes]) -> None:
    for name, content in before.items():
        if name.startswith("journal/"):
            assert now[name].startswith(content[: len(content) // 2]), name
        elif not name.startswith("config/repositories/"):  # which says where it is now
            assert now[name] == content, name


def test_beyond_the_last_point_it_is_listed_what_to_send_again(end: End, new_dev: Callable[..., Dev]) -> None:
    new = new_dev(**QUICK)
    said = end.lost.restore(new, "--to-the-end")
    study = peer.study_uid_of(UNSHIPPED[0])
    assert "2 objects are in no repository" in said and study in said and "CT2" in said
    new.start()
    (listed,) = json.loads(new.pacs("restore", "missing", "--json").stdout)
    assert (listed["calling_ae"], listed["study_instance_uid"], listed["objects"]) == ("CT2", study, 2)
    assert contents(new) == end.contents_at_the_end
    assert set(peer.store(new.dicom_port, UNSHIPPED)) == {0}
    assert "Nothing is missing" in new.pacs("restore", "missing").stdout
    assert given_back(new, UNSHIPPED) == {raw.sop_instance_uid: raw.dataset for raw in UNSHIPPED}


def test_a_damaged_point_is_left_out_and_a_damaged_object_is_told(
    end: End, new_dev: Callable[..., Dev], short_folder: Path
) -> None:
    damaged = end.lost.copy(short_folder / "damaged")
    for path in (damaged.repository / "points").glob("*.json"):
        if path.stem > end.good.name:
            path.write_bytes(path.read_bytes().replace(b'"at"', b'"ta"'))
    meta = part10.encode_file_meta(GOOD[0].sop_class_uid, GOOD[0].sop_instance_uid, GOOD[0].transfer_syntax_uid)
    file = damaged.repository / repository_path(hashlib.sha256(meta + GOOD[0].dataset).digest())
    file.write_bytes(file.read_bytes()[:-7])
    new = new_dev(**QUICK)
    assert "3 studies, 9 objects" in damaged.restore(new)
    new.start()
    wait_for(lambda: is_whole_again(new), f"it does not come back: {new.log()[-2000:]}", timeout_s=120)
    assert len(rows(new, _NOT_ON_OWN_VOLUMES)) == 1, new.log()[-5000:]
    (listed,) = json.loads(new.pacs("restore", "missing", "--json").stdout)
    assert listed["objects"] == 1
    shutil.rmtree(damaged.repository)


def test_a_disk_that_is_too_small_is_told_before_anything_is_touched(
    end: End, new_dev: Callable[..., Dev], short_folder: Path
) -> None:
    with file_system(short_folder / "small", size_mib=100) as small:
        new = Dev(small.root / "data", QUICK)
        code, why = end.lost.refused(new)
        assert code == 8 and "too small" in why
        assert not (new.data / MARK).exists()
        assert "too small" in end.lost.refused(new, "--dry-run")[1]


# --- killed --------------------------------------------------------------------------------------------------------


def _kill_and_run_again(end: End, new: Dev, kills: int, seed: int) -> int:
    """Kill so many runs of a restore; return how many were killed at work. The last one is let be."""
    moments, inside, words = random.Random(seed), 0, end.lost.words("--point", end.good.name)
    longest_s = 12.0
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-m", "pacs.cli.main", "--data", str(new.data), *words], stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, start_new_session=True, text=True,
        )  # fmt: skip
        try:
            _out, said = process.communicate(timeout=moments.uniform(0.5, longest_s))
            if "holds images" in said and not (new.data / MARK).exists():
                return inside  # the one before was killed when all was done
            assert process.returncode == 0, said
            return inside
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        if inside and not (new.data / MARK).exists():
            return inside  # it was killed when all was done
        if (new.data / MARK).exists():
            inside += 1
            words = ["restore"]  # which goes on, without a word
            refused = new.pacs("check", check=False)
            assert refused.returncode == 2 and "did not finish" in refused.stdout
    done = new.pacs(*words, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return inside


def test_a_restore_that_is_killed_goes_on(end: End, new_dev: Callable[..., Dev]) -> None:
    new = new_dev(**QUICK)
    _kill_and_run_again(end, new, 4, seed=5)
    assert not (new.data / MARK).exists()
    new.start()
    assert contents(new) == end.contents
    assert given_back(new, GOOD) == {raw.sop_instance_uid: raw.dataset for raw in GOOD}


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_restore_that_is_killed_again_and_again(end: End, new_dev: Callable[..., Dev]) -> None:
    inside = 0
    for seed in range(12):
        new = new_dev(**QUICK)
        inside += _kill_and_run_again(end, new, 8, seed)
        new.start(timeout_s=240)
        assert contents(new) == end.contents
        new.stop()
    print(f"killed {inside} times at work")
    assert inside > 20
