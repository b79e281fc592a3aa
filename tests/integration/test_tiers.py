"""Settled studies move from tier to tier: verified first, then removed, and at no moment without a good copy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pacs.archive import tiering
from pacs.archive.drain import drain, progress
from pacs.archive.move_group import Pass
from pacs.archive.transfer import Transfer
from pacs.cli.instance import Instance
from pacs.errors import DatabaseUnavailable, NotFound, UsageError, VolumeFull
from pacs.index import store as rows
from pacs.index import tiers
from pacs.index.movement import StudyLocks
from pacs.model.tier_rules import Fill, Look, Rule
from pacs.storage.files import LocalVolume
from tests.faults.process import wait_for
from tests.serving import stored_bytes
from tests.synthetic import SyntheticObject, ct_study
from tests.tiers import add_volume, assert_each_object_is_safe, files, follow, good_by_tier, mover, store

DOWN = Rule("down", 1, 2)
FAR = Rule("far", 2, 3)


@pytest.fixture
def three(instance: Instance) -> Instance:
    """An instance with a third tier."""
    add_volume(instance, 3, "far1")
    return instance


def _back(instance: Instance, objects: list[SyntheticObject]) -> None:
    retrieve = instance.retrieve()
    wanted = {w.sop_instance_uid: w for w in retrieve.wanted({"StudyInstanceUID": [objects[0].study_instance_uid]})}
    for made in objects:
        assert stored_bytes(retrieve, wanted[made.sop_instance_uid]) == made.dataset


def _age(instance: Instance, objects: list[SyntheticObject], days: float) -> None:
    """Let a study have arrived days ago."""
    with instance.database.transaction() as connection:
        connection.execute(
            "UPDATE object o SET arrived_at = now() - make_interval(secs => 86400 * %s::float8)"
            " FROM series se JOIN study st USING (study_key)"
            " WHERE o.series_key = se.series_key AND st.study_instance_uid = %s",
            (days, objects[0].study_instance_uid),
        )


def _moved(instance: Instance, tier: int = 2) -> set[str]:
    """The studies that have a good copy on a tier."""
    with instance.database.transaction() as connection:
        found = connection.execute(
            "SELECT DISTINCT st.study_instance_uid AS uid FROM copy c JOIN volume v USING (volume_id)"
            " JOIN object USING (object_key) JOIN series USING (series_key) JOIN study st USING (study_key)"
            " WHERE c.state = 'good' AND v.tier = %s",
            (tier,),
        ).fetchall()
    return {row["uid"] for row in found}


# --- the steps of a move ---------------------------------------------------------------------------------------------


def test_a_study_moves_and_comes_back_from_tier_2(instance: Instance) -> None:
    objects = ct_study(1, 5)
    store(instance, objects)
    done = follow(instance, DOWN)
    assert (done.studies, done.objects, done.failed) == (1, 5, 0)
    _back(instance, objects)
    assert len(files(instance.volumes, 2)) == 5
    assert len(files(instance.volumes, 1)) == 5, "readers that were told the old path have ten minutes"
    with mover(instance) as moving:
        assert moving.remove_left(grace_s=600) == 0
        assert moving.remove_left(grace_s=0) == 5
    assert files(instance.volumes, 1) == []
    _back(instance, objects)
    assert_each_object_is_safe(instance)


def test_many_small_studies_move_together_and_one_large_one_in_batches(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacs.archive.batches.BATCH_OBJECTS", 4)
    for seed in range(20, 26):
        store(instance, ct_study(seed, 1, rows=8, columns=8))
    store(instance, ct_study(26, 10, rows=8, columns=8))
    done = follow(instance, DOWN)
    assert (done.studies, done.objects, done.failed) == (7, 16, 0)
    assert good_by_tier(instance) == {2: 16}
    assert_each_object_is_safe(instance)


def test_below_the_high_mark_nothing_moves(instance: Instance) -> None:
    store(instance, ct_study(2, 2))
    done = Pass()
    with mover(instance) as moving:
        moving.follow([Rule("default", 1, 2, 100, 99)], done)
    assert done.is_nothing


def test_the_longest_unused_goes_first_and_only_as_much_as_is_asked_for(instance: Instance) -> None:
    studies = {seed: ct_study(seed, 3) for seed in (3, 4, 5)}
    for objects in studies.values():
        store(instance, objects)
    with instance.database.transaction() as connection:
        key = tiers.study_key_of(connection, studies[3][0].study_instance_uid)
    tiers.note_use(instance.database, [key])
    done = Pass()
    with mover(instance) as moving:
        moving.follow_rule(DOWN, Look(True, 1, ""), done)
    assert done.studies == 1
    assert _moved(instance) == {studies[4][0].study_instance_uid}, "the oldest one was retrieved since"


def test_an_unsettled_study_stays(instance: Instance) -> None:
    store(instance, ct_study(6, 2))
    assert follow(instance, DOWN, settle_s=3600).objects == 0


def test_a_study_whose_association_is_open_stays(instance: Instance) -> None:
    session = instance.database.autocommit_connection()
    try:
        key = rows.open_association(instance.database, rows.open_session(session), "CT1", "127.0.0.1")
        store(instance, ct_study(7, 2), key)
        assert follow(instance, DOWN).objects == 0, "its association is open"
    finally:
        session.close()  # the receiver dies without closing it
    # The server notices in its own time that the connection is gone.
    wait_for(lambda: follow(instance, DOWN).objects == 2, "a dead receiver's association holds it up", 30)


def test_bytes_that_changed_on_tier_1_do_not_move_and_do_not_hold_up_the_others(instance: Instance) -> None:
    store(instance, ct_study(8, 2))
    damaged = files(instance.volumes, 1)[0]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    done = follow(instance, DOWN)
    assert (done.objects, done.failed) == (1, 1)
    assert len(files(instance.volumes, 2)) == 1
    assert damaged.exists()
    assert not list((instance.volumes.tier(2)[0].root / "incoming").iterdir())  # type: ignore[attr-defined]
    with instance.database.transaction() as connection:
        row = connection.execute("SELECT state FROM copy WHERE state <> 'leaving' AND state <> 'good'").fetchall()
    assert row == [{"state": "bad"}], "it is out of service, where scrub and check see it"


def test_a_far_side_that_loses_bytes_is_found_before_the_first_copy_goes(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk lies: what it gives back is not what was written."""
    objects = ct_study(9, 2)
    store(instance, objects)
    (target,) = instance.volumes.tier(2)
    assert isinstance(target, LocalVolume)
    put_many = target.put_many

    def put_and_damage(given):
        outcomes = put_many(given)
        for each in given:
            file = target.root / each.path
            content = bytearray(file.read_bytes())
            content[200] ^= 1
            file.write_bytes(content)
        return outcomes

    monkeypatch.setattr(target, "put_many", put_and_damage)
    done = follow(instance, DOWN)
    assert (done.objects, done.failed) == (0, 2)
    assert files(instance.volumes, 2) == []
    _back(instance, objects)


def test_a_pass_after_a_kill_in_the_middle_moves_nothing_twice(instance: Instance) -> None:
    """Killed after a batch was committed: the rest follows, what is there is not copied again."""
    objects = ct_study(10, 4)
    store(instance, objects)
    follow(instance, replace(DOWN, keep=True))
    with instance.database.transaction() as connection:
        connection.execute(
            "DELETE FROM copy WHERE copy_key = (SELECT max(copy_key) FROM copy)"  # its file is there, its row is not
        )
    before = set(files(instance.volumes, 2))
    done = follow(instance, DOWN)
    assert (done.objects, done.failed) == (4, 0)
    assert len(set(files(instance.volumes, 2)) - before) == 1
    assert good_by_tier(instance) == {2: 4}
    _back(instance, objects)


def test_the_last_good_copy_never_leaves(instance: Instance) -> None:
    objects = ct_study(11, 1)
    store(instance, objects)
    follow(instance, DOWN)
    with instance.database.transaction() as connection:
        connection.execute("UPDATE copy SET state = 'bad' WHERE state = 'good'")  # tier 2's was found bad meanwhile
    with mover(instance) as moving:
        assert moving.remove_left(grace_s=0) == 0
    assert good_by_tier(instance) == {1: 1}
    _back(instance, objects)


def test_a_copy_stays_while_the_volume_of_the_other_one_is_not_here(instance: Instance) -> None:
    store(instance, ct_study(12, 2))
    follow(instance, DOWN)
    root = Path(instance.volumes.tier(2)[0].location)
    root.rename(root.with_name("away"))
    instance.volumes.refresh()
    with mover(instance) as moving:
        assert moving.remove_left(grace_s=0) == 0
    root.with_name("away").rename(root)
    instance.volumes.refresh()
    with mover(instance) as moving:
        assert moving.remove_left(grace_s=0) == 2


# --- two at once -----------------------------------------------------------------------------------------------------


def test_two_workers_on_one_study_one_of_them_leaves_it(instance: Instance) -> None:
    objects = ct_study(13, 3)
    store(instance, objects)
    with instance.database.transaction() as connection:
        key = tiers.study_key_of(connection, objects[0].study_instance_uid)
    other = StudyLocks(instance.database)
    with other.holding([key]) as mine:
        assert mine == [key]
        assert follow(instance, DOWN).objects == 0
    other.close()
    assert follow(instance, DOWN).objects == 3


def test_two_workers_at_once_copy_each_object_once(instance: Instance) -> None:
    for seed in range(30, 42):
        store(instance, ct_study(seed, 3, rows=8, columns=8))
    passes = [Pass(), Pass()]

    def work(done: Pass) -> None:
        with mover(instance) as moving:
            moving.follow_rule(DOWN, Look(True, None, ""), done)

    threads = [threading.Thread(target=work, args=(done,)) for done in passes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    follow(instance, DOWN)  # what one left to the other that had gone by
    assert good_by_tier(instance) == {2: 36}
    assert len(files(instance.volumes, 2)) == 36, "none was copied twice"
    assert_each_object_is_safe(instance)


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Iterator[list]:  # type: ignore[type-arg]
    """What is done between the copying of a batch and its commit."""
    todo: list = []  # type: ignore[type-arg]
    verify = Transfer._verified

    def verify_and_do(self, *words):  # type: ignore[no-untyped-def]
        verified = verify(self, *words)
        for each in todo:
            each()
        return verified

    monkeypatch.setattr(Transfer, "_verified", verify_and_do)
    yield todo


def test_an_object_deleted_while_it_is_copied_leaves_no_file_behind(instance: Instance, between: list) -> None:  # type: ignore[type-arg]
    objects = ct_study(14, 3)
    store(instance, objects)

    def delete_one() -> None:
        with instance.database.transaction() as connection:
            gone = "(SELECT object_key FROM object WHERE sop_instance_uid = %s)"
            for table in ("copy", "object"):
                connection.execute(
                    f"DELETE FROM {table} WHERE object_key = {gone}".encode(), (objects[1].sop_instance_uid,)
                )

    between.append(delete_one)
    done = follow(instance, DOWN)
    assert (done.objects, done.failed) == (2, 0)
    assert len(files(instance.volumes, 2)) == 2
    assert good_by_tier(instance) == {2: 2}


def test_a_copy_that_another_made_meanwhile_counts_and_ours_goes(instance: Instance, between: list) -> None:  # type: ignore[type-arg]
    """A repair was faster: one row for each copy and volume, and no file without one."""
    store(instance, ct_study(15, 2))

    def repair() -> None:
        between.clear()
        with mover(instance) as another:
            another._groups._locks.holding = _everything  # type: ignore[method-assign]
            another.follow_rule(replace(DOWN, keep=True), Look(True, None, ""), Pass())

    between.append(repair)
    follow(instance, DOWN)
    assert len(files(instance.volumes, 2)) == 2
    assert good_by_tier(instance)[2] == 2
    assert_each_object_is_safe(instance)


class _everything:  # noqa: N801
    """Locks that are always given: a repair has none."""

    def __init__(self, keys: list[int]) -> None:
        self.keys = keys

    def __enter__(self) -> list[int]:
        return self.keys

    def __exit__(self, *_exc: object) -> None:
        pass


def test_an_unknown_outcome_of_the_commit_leaves_the_files_to_reconciliation(
    instance: Instance,
    between: list,  # type: ignore[type-arg]
) -> None:
    store(instance, ct_study(16, 2))

    def break_it() -> None:
        raise DatabaseUnavailable

    between.append(break_it)
    with pytest.raises(DatabaseUnavailable):
        follow(instance, DOWN)
    assert good_by_tier(instance) == {1: 2}
    between.clear()
    assert follow(instance, DOWN).objects == 2


# --- rules and pins --------------------------------------------------------------------------------------------------


def test_rules_choose_by_age_use_modality_and_device(three: Instance) -> None:
    old, young = ct_study(50, 1), ct_study(51, 1)
    store(three, old)
    store(three, young)
    _age(three, old, 30)
    old_uid = old[0].study_instance_uid

    def about(**conditions: object) -> set[str]:
        (planned,) = tiering.plan(
            three.database,
            three.volumes,
            three.settings,
            Rule("r", 1, 3, **conditions),  # type: ignore[arg-type]
        )
        return {move.study_instance_uid for move in planned.moves}

    both = {old_uid, young[0].study_instance_uid}
    assert about(age_days=29) == about(unused_days=29) == {old_uid}
    assert about(age_days=31) == set()
    assert about(modalities=("MR",)) == set()
    assert about(modalities=("MR", "CT")) == about(tenants=("default",)) == both
    assert about(devices=("unknown",)) == set()
    assert about(age_days=1, age_of="study date") | both == both
    with three.database.transaction() as connection:
        key = tiers.study_key_of(connection, old_uid)
    tiers.note_use(three.database, [key])
    assert about(unused_days=29) == set(), "it was retrieved just now"
    assert about(age_days=29) == {old_uid}


def test_a_rule_by_device_follows_the_association_that_brought_a_study(three: Instance) -> None:
    with three.database.transaction() as connection:
        connection.execute(
            "INSERT INTO device (name, ae_title, host, port, aliases) VALUES ('ct', 'CT1', 'h', 104, '{CT1B}')"
        )
    session = three.database.autocommit_connection()
    for seed, title in ((52, "CT1B"), (53, "MR1")):
        key = rows.open_association(three.database, rows.open_session(session), title, "127.0.0.1")
        store(three, ct_study(seed, 1), key)
    session.close()
    follow(three, Rule("r", 1, 2, devices=("ct",)))
    assert _moved(three) == {ct_study(52, 1)[0].study_instance_uid}


def test_a_pinned_study_stays_and_the_journal_names_it_by_uid(instance: Instance) -> None:
    objects = ct_study(54, 2)
    store(instance, objects)
    uid = objects[0].study_instance_uid
    tiering.pin(instance.database, instance.journal, uid, "teaching")
    assert follow(instance, DOWN).objects == 0
    tiering.unpin(instance.database, instance.journal, uid)
    assert follow(instance, DOWN).objects == 2
    with pytest.raises(NotFound, match="not pinned"):
        tiering.unpin(instance.database, instance.journal, uid)
    written = [(line["what"], line["study_instance_uid"]) for line in instance.journal.read()]
    assert written == [("study pin", uid), ("study unpin", uid)]


def test_rules_are_journalled_followed_in_order_and_removed(three: Instance) -> None:
    far = Rule("old", 2, 3, unused_days=365)
    tiering.add_rule(three.database, three.journal, three.settings, far)
    assert [each.name for each in tiering.rules_in_force(three.database, three.settings)] == ["default", "old"]
    with pytest.raises(UsageError, match="moves down only"):
        tiering.add_rule(three.database, three.journal, three.settings, Rule("up", 3, 1, age_days=5))
    tiering.remove_rule(three.database, three.journal, "old")
    with pytest.raises(NotFound, match="no rule old"):
        tiering.remove_rule(three.database, three.journal, "old")
    first, second = three.journal.read()
    assert (first["what"], Rule.of(first)) == ("tier rule add", far)
    assert (second["what"], second["name"]) == ("tier rule remove", "old")


def test_a_rule_that_keeps_makes_a_second_copy_once_and_the_marks_then_copy_nothing(instance: Instance) -> None:
    store(instance, ct_study(55, 3))
    keep = replace(DOWN, keep=True)
    assert follow(instance, keep).objects == 3
    assert follow(instance, keep).objects == 0
    assert good_by_tier(instance) == {1: 3, 2: 3}
    before = files(instance.volumes, 2)
    assert follow(instance, DOWN).objects == 3
    assert files(instance.volumes, 2) == before
    assert good_by_tier(instance) == {2: 3}


def test_a_bandwidth_limit_is_kept_over_batches(three: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch waits as long as the bucket says; nothing is measured."""
    waits: list[float] = []
    monkeypatch.setattr(Transfer, "pause", lambda self, seconds: waits.append(seconds))
    monkeypatch.setattr("pacs.archive.batches.BATCH_OBJECTS", 1)
    store(three, ct_study(56, 4, rows=512, columns=512))  # 0.5 MB each
    follow(three, replace(DOWN, bytes_per_s_max=1 << 20))
    assert len(waits) == 8, "before each batch, and before the one piece that is in it"
    assert waits[:2] == [0, 0]
    assert sum(waits) > 0.5, "two of four megabytes are a second's worth, the others wait"


def test_full_tiers_say_so_and_nothing_is_left_behind(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    store(instance, ct_study(57, 2))
    (target,) = instance.volumes.tier(2)
    monkeypatch.setattr(target, "require_room", _no_room)
    with pytest.raises(VolumeFull):
        follow(instance, DOWN)
    assert files(instance.volumes, 2) == []
    assert good_by_tier(instance) == {1: 2}


def _no_room(size_bytes: int = 0) -> None:
    raise VolumeFull


def test_fill_counts_a_shared_file_system_once(instance: Instance) -> None:
    before: Fill
    with mover(instance) as moving:
        before = moving.fill(1)
        add_volume(instance, 1, "fast2")
        after = moving.fill(1)
    assert before.free_bytes is not None and after.free_bytes is not None
    assert abs(after.free_bytes - before.free_bytes) < before.free_bytes / 2


# --- drain -----------------------------------------------------------------------------------------------------------


def test_a_volume_is_drained_to_the_others_of_its_tier_pinned_studies_too(instance: Instance) -> None:
    pinned, other = ct_study(60, 2), ct_study(61, 3)
    store(instance, pinned)
    store(instance, other)
    tiering.pin(instance.database, instance.journal, pinned[0].study_instance_uid)
    (old,) = instance.volumes.tier(1)
    new_id = add_volume(instance, 1, "fast2")
    _set_state(instance, old.volume_id, "draining")
    done = Pass()
    with mover(instance) as moving:
        drain(moving, instance.volumes, old, done)
        assert progress(instance.database, old.volume_id).leaving_objects == 5
        assert not progress(instance.database, old.volume_id).is_empty
        moving.remove_left(grace_s=0)
    assert (done.objects, done.errors) == (5, [])
    assert progress(instance.database, old.volume_id).is_empty
    assert progress(instance.database, new_id).objects == 5
    assert_each_object_is_safe(instance)
    _back(instance, pinned)


def test_the_only_volume_of_a_tier_is_drained_down_but_for_what_is_pinned(instance: Instance) -> None:
    pinned, other = ct_study(62, 2), ct_study(63, 3)
    store(instance, pinned)
    store(instance, other)
    tiering.pin(instance.database, instance.journal, pinned[0].study_instance_uid)
    (old,) = instance.volumes.tier(1)
    _set_state(instance, old.volume_id, "draining")
    done = Pass()
    with mover(instance) as moving:
        drain(moving, instance.volumes, old, done)
    assert _moved(instance) == {other[0].study_instance_uid}
    assert len(done.errors) == 1 and "Pinned studies stay on tier 1" in done.errors[0]
    assert good_by_tier(instance) == {1: 2, 2: 3}


def _set_state(instance: Instance, volume_id: str, state: str) -> None:
    with instance.database.transaction() as connection:
        connection.execute("UPDATE volume SET state = %s WHERE volume_id = %s", (state, volume_id))
    instance.volumes.refresh()
