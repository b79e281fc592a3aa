"""What comes back behind a restore: everything, the newest and most lately used first, whoever dies meanwhile."""

from __future__ import annotations

import hashlib
import re
import shutil
import uuid
from datetime import timedelta
from pathlib import Path

import pytest

from pacs import clock
from pacs.archive import devices
from pacs.archive.recall import Behind
from pacs.archive.volume_changes import VolumeChanges
from pacs.backup.repositories import repositories
from pacs.cli.instance import Instance
from pacs.index import recalls, restores, tiers
from pacs.index.devices import Device
from pacs.index.volumes import KnownVolume
from pacs.model.tier_rules import Rule
from pacs.storage.journal import Journal
from pacs.storage.names import repository_path
from pacs.storage.volume import create_identity, read_identity
from tests.repository import add_folder, ship
from tests.serving import stored_bytes
from tests.synthetic import SyntheticObject, ct_study
from tests.tiers import follow, good_by_tier, mover, recall, store


@pytest.fixture
def backed_up(instance: Instance, tmp_path: Path) -> Instance:
    """An instance with a repository."""
    add_folder(instance, tmp_path / "repository")
    return instance


def _ship(instance: Instance) -> None:
    """Have all objects in the repository."""
    (repository,) = repositories(instance.settings.data)
    assert ship(instance, repository).error == ""


def _lose_the_volumes(instance: Instance, restore_id: str = "") -> restores.Replaced:
    """The disks are gone; empty ones are in their place, as `pacs restore` leaves them."""
    gone = [row for row in instance.volumes.rows if row.tier < 4]
    new = []
    for row in gone:
        shutil.rmtree(row.location)
        Path(row.location).mkdir()
        made = create_identity(Path(row.location), (row.role,), read_identity(instance.settings.data).appliance_id)
        new.append(KnownVolume(made.volume_id, row.name, row.tier, row.location))
    with instance.database.transaction() as connection:
        replaced = restores.replace_volumes(connection, [row.volume_id for row in gone], new)
        restores.forget_what_went_on(connection)
        restores.begin_bulk(connection, restore_id or str(uuid.uuid4()), "usb", "20261122T100000Z", clock.now())
    instance.volumes.refresh()
    return replaced


def _behind(instance: Instance, low_percent: float = 70) -> int:
    behind = Behind(instance.database, instance.volumes, low_percent)
    try:
        done = behind.run()
        restores.finish_bulk(instance.database)
        return done
    finally:
        behind.close()


def _assert_served(instance: Instance, objects: list[SyntheticObject]) -> None:
    retrieve = instance.retrieve()
    found = retrieve.wanted({"StudyInstanceUID": [objects[0].study_instance_uid]})
    assert {each.sop_instance_uid: stored_bytes(retrieve, each) for each in found} == {
        made.sop_instance_uid: made.dataset for made in objects
    }


def _assert_files_are_right(instance: Instance) -> None:
    """Each copy on the archive's own volumes is where a volume has it, and is what its row says."""
    with instance.database.transaction() as connection:
        rows = connection.execute(
            "SELECT o.sha256, v.location, c.path FROM object o JOIN copy c USING (object_key)"
            " JOIN volume v USING (volume_id) WHERE v.tier < 4 AND c.state = 'good'"
        ).fetchall()
    assert rows
    for row in rows:
        assert re.fullmatch(r"objects/1/\d{4}/\d\d/\d\d/[0-9a-f]{16}/[0-9a-f]{64}-[0-9a-f]{12}\.dcm", row["path"])
        assert hashlib.sha256(Path(row["location"], row["path"]).read_bytes()).digest() == bytes(row["sha256"])


def _order(instance: Instance) -> list[str]:
    with instance.database.transaction() as connection:
        rows = connection.execute(
            "SELECT study_instance_uid FROM recall JOIN study USING (study_key) WHERE why = 'restore'"
            " ORDER BY recall_key"
        ).fetchall()
    return [row["study_instance_uid"] for row in rows]


def test_all_is_served_from_the_repository_and_comes_back(backed_up: Instance) -> None:
    studies = [ct_study(seed, 3) for seed in (1, 2, 3)]
    for objects in studies:
        store(backed_up, objects)
    _ship(backed_up)
    assert _lose_the_volumes(backed_up) == restores.Replaced(copies=9, objects_lost=0)
    assert good_by_tier(backed_up) == {4: 9}
    _assert_served(backed_up, studies[2])
    found = restores.newest_restore(backed_up.database)
    assert found is not None
    assert (found["studies"], found["objects"], found["done_objects"], found["finished_at"]) == (3, 9, 0, None)

    assert _behind(backed_up) == 2, "one of them was asked for: the other recaller brings it"
    assert recall(backed_up) == 1
    assert _behind(backed_up) == 0
    assert sum(n for tier, n in good_by_tier(backed_up).items() if tier < 4) == 9
    assert good_by_tier(backed_up)[4] == 9, "the repository's copies stay"
    _assert_files_are_right(backed_up)
    for objects in studies:
        _assert_served(backed_up, objects)
    found = restores.newest_restore(backed_up.database)
    assert found is not None
    assert (found["done_studies"], found["done_objects"]) == (3, 9)
    assert found["finished_at"] is not None
    assert found["done_bytes"] == found["size_bytes"] == found["lately_bytes"]


def test_the_newest_and_most_lately_used_come_first(backed_up: Instance) -> None:
    studies = [ct_study(seed, 1) for seed in range(1, 6)]
    for age_days, objects in zip((50, 40, 30, 20, 10), studies, strict=True):
        store(backed_up, objects)
        with backed_up.database.transaction() as connection:
            connection.execute(
                "UPDATE object SET arrived_at = %s WHERE sop_instance_uid = %s",
                (clock.now() - timedelta(days=age_days), objects[0].sop_instance_uid),
            )
    with backed_up.database.transaction() as connection:
        used = tiers.study_key_of(connection, studies[1][0].study_instance_uid)
    tiers.note_use(backed_up.database, [used])
    _ship(backed_up)
    _lose_the_volumes(backed_up)
    assert _order(backed_up) == [studies[n][0].study_instance_uid for n in (1, 4, 3, 2, 0)]


def test_whoever_asks_need_not_wait_for_the_bulk(backed_up: Instance) -> None:
    studies = [ct_study(seed, 1) for seed in (1, 2, 3)]
    for objects in studies:
        store(backed_up, objects)
    _ship(backed_up)
    _lose_the_volumes(backed_up)
    with backed_up.database.transaction() as connection:
        key = tiers.study_key_of(connection, studies[0][0].study_instance_uid)
        recalls.request(connection, [key], "asked")
        recalls.request(connection, [key], "prior")
    (due,) = recalls.due(backed_up.database, 10)
    assert due["study_key"] == key
    assert len(recalls.due_behind(backed_up.database, 10)) == 2
    assert [row["why"] for row in recalls.list_recalls(backed_up.database, 10)] == ["asked"]


def test_noted_twice_it_is_one_restore(backed_up: Instance) -> None:
    """`pacs restore` that was killed behind its last step, and is run again."""
    store(backed_up, ct_study(1, 2))
    _ship(backed_up)
    _lose_the_volumes(backed_up, restore_id := str(uuid.uuid4()))
    before = restores.newest_restore(backed_up.database)
    with backed_up.database.transaction() as connection:
        restores.begin_bulk(connection, restore_id, "usb", "20261122T100000Z", clock.now())
    assert restores.newest_restore(backed_up.database) == before
    with backed_up.database.transaction() as connection:
        assert connection.execute("SELECT count(*) AS n FROM restore").fetchone() == {"n": 1}


def test_what_is_in_no_repository_is_listed_by_who_sent_it_and_healed_by_a_sending(backed_up: Instance) -> None:
    journal = Journal(backed_up.settings.data)
    devices.add_device(backed_up.database, journal, Device("CT room 2", "CT2", "192.0.2.7", 104))
    kept, lost = ct_study(1, 2), ct_study(2, 3)
    store(backed_up, kept)
    _ship(backed_up)
    with backed_up.database.transaction() as connection:
        row = connection.execute(
            "INSERT INTO association (session_key, calling_ae, peer) VALUES (1, 'CT2', '192.0.2.7')"
            " RETURNING association_key"
        ).fetchone()
    assert row is not None
    store(backed_up, lost, row["association_key"])
    assert _lose_the_volumes(backed_up) == restores.Replaced(copies=5, objects_lost=3)
    (found,) = restores.studies_to_send_again(backed_up.database, 100)
    assert (found["calling_ae"], found["device"], found["objects"]) == ("CT2", "CT room 2", 3)
    assert found["study_instance_uid"] == lost[0].study_instance_uid
    assert [row["calling_ae"] for row in restores.last_heard(backed_up.database)] == ["CT2"]
    store(backed_up, lost)
    assert restores.studies_to_send_again(backed_up.database, 100) == []
    _assert_served(backed_up, lost)


def test_tier_1_is_filled_to_its_low_mark_only(backed_up: Instance) -> None:
    store(backed_up, ct_study(1, 2))
    _ship(backed_up)
    _lose_the_volumes(backed_up)
    assert _behind(backed_up, low_percent=0) == 1
    assert good_by_tier(backed_up) == {2: 2, 4: 2}


def test_without_the_repository_it_waits_and_is_never_given_up(backed_up: Instance, tmp_path: Path) -> None:
    store(backed_up, ct_study(1, 2))
    _ship(backed_up)
    _lose_the_volumes(backed_up)
    (repository,) = backed_up.volumes.tier(4)
    place = Path(repository.location)
    place.rename(tmp_path / "away")
    backed_up.volumes.refresh()
    for _ in range(12):
        with backed_up.database.transaction() as connection:
            connection.execute("UPDATE recall SET next_try_at = now()")
        assert _behind(backed_up) == 0
    found = restores.newest_restore(backed_up.database)
    assert found is not None
    assert (found["waiting"], found["finished_at"]) == (1, None)
    assert found["last_error"]
    (tmp_path / "away").rename(place)
    backed_up.volumes.refresh()
    with backed_up.database.transaction() as connection:
        connection.execute("UPDATE recall SET next_try_at = now()")
    assert _behind(backed_up) == 1
    _assert_files_are_right(backed_up)


def test_a_dead_disks_objects_come_back_from_the_repository(backed_up: Instance) -> None:
    """docs/operate/replace-a-disk.md: nobody restores for one disk."""
    objects = ct_study(1, 3)
    store(backed_up, objects)
    follow(backed_up, Rule("down", 1, 2))
    _ship(backed_up)
    with mover(backed_up) as moving:
        moving.remove_left(grace_s=0)
    assert good_by_tier(backed_up) == {2: 3, 4: 3}
    (dead,) = [row for row in backed_up.volumes.rows if row.tier == 2]
    shutil.rmtree(dead.location)
    backed_up.volumes.refresh()
    changes = VolumeChanges(
        backed_up.database, Journal(backed_up.settings.data), backed_up.settings.data, backed_up.volumes
    )
    changes.drain("tier2")
    changes.retire("tier2", leave_copies=True)
    _assert_served(backed_up, objects)
    assert recall(backed_up) == 1, "it was asked for"
    assert _behind(backed_up) == 0
    assert good_by_tier(backed_up) == {1: 3, 4: 3}
    found = restores.newest_restore(backed_up.database)
    assert found is not None and found["finished_at"] is not None
    with backed_up.database.transaction() as connection:
        assert connection.execute("SELECT FROM volume WHERE is_source").fetchall() == []


def test_what_the_repository_has_not_got_or_not_as_it_was_is_told_and_holds_nothing_up(backed_up: Instance) -> None:
    objects = ct_study(1, 4)
    store(backed_up, objects)
    _ship(backed_up)
    _lose_the_volumes(backed_up)
    with backed_up.database.transaction() as connection:
        rows = connection.execute("SELECT sha256 FROM object ORDER BY object_key").fetchall()
    (repository,) = repositories(backed_up.settings.data)
    damaged, missing = (Path(repository.place, repository_path(bytes(row["sha256"]))) for row in rows[:2])
    damaged.write_bytes(damaged.read_bytes()[:-7])
    missing.unlink()
    assert _behind(backed_up) == 0
    with backed_up.database.transaction() as connection:
        connection.execute("UPDATE recall SET next_try_at = now()")
    assert _behind(backed_up) == 1
    _assert_files_are_right(backed_up)
    (listed,) = restores.studies_to_send_again(backed_up.database, 10)
    assert listed["objects"] == 2
    store(backed_up, objects[:2])
    assert restores.studies_to_send_again(backed_up.database, 10) == []
    _assert_served(backed_up, objects)
