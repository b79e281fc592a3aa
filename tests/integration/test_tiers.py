"""Settled studies move from tier 1 to tier 2: verified first, then removed, and at no moment without a good copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacs.archive.move import Mover, Pass
from pacs.archive.store import Arrival
from pacs.cli.instance import Instance
from pacs.index import store as rows
from pacs.index import volumes as volume_rows
from pacs.storage.files import LocalVolume
from tests.serving import stored_bytes
from tests.synthetic import SyntheticObject, ct_study


def _store(instance: Instance, objects: list[SyntheticObject], association_key: int | None = None) -> None:
    store = instance.store()
    for made in objects:
        arrival = Arrival(
            made.dataset, made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid, association_key
        )
        assert store.store(arrival) == "stored"


def _mover(instance: Instance, settle_s: float = 0) -> Mover:
    return Mover(instance.database, instance.volumes.tier(1)[0], instance.volumes.tier(2)[0], settle_s)


def _files(volume: LocalVolume) -> list[Path]:
    return sorted((volume.root / "objects").rglob("*.dcm"))


def _back(instance: Instance, objects: list[SyntheticObject]) -> None:
    retrieve = instance.retrieve()
    wanted = {w.sop_instance_uid: w for w in retrieve.wanted({"StudyInstanceUID": [objects[0].study_instance_uid]})}
    for made in objects:
        assert stored_bytes(retrieve, wanted[made.sop_instance_uid]) == made.dataset


def test_a_study_moves_and_comes_back_from_tier_2(instance: Instance) -> None:
    objects = ct_study(1, 5)
    _store(instance, objects)
    done = _mover(instance).run(high_percent=0, low_percent=0)
    assert (done.studies, done.objects, done.failed) == (1, 5, 0)
    _back(instance, objects)
    assert len(_files(instance.volumes.tier(2)[0])) == 5
    assert len(_files(instance.volumes.tier(1)[0])) == 5, "readers that were told the old path have ten minutes"
    assert _mover(instance).remove_left(grace_s=0) == 5
    assert _files(instance.volumes.tier(1)[0]) == []
    _back(instance, objects)


def test_below_the_high_mark_nothing_moves(instance: Instance) -> None:
    _store(instance, ct_study(2, 2))
    assert _mover(instance).run(high_percent=100, low_percent=0).objects == 0


def test_the_oldest_study_goes_first_and_only_to_the_low_mark(instance: Instance) -> None:
    for seed in (3, 4, 5):
        _store(instance, ct_study(seed, 3))
    mover = _mover(instance)
    # The disk below is not ours alone; what is to move is made exact by asking for one byte more than nothing.
    mover._bytes_above = lambda percent: 1.0  # type: ignore[method-assign]
    done = mover.run(high_percent=0, low_percent=0)
    assert done.studies == 1
    with instance.database.transaction() as connection:
        left = connection.execute(
            "SELECT DISTINCT st.study_instance_uid AS uid FROM copy c JOIN object o USING (object_key)"
            " JOIN series USING (series_key) JOIN study st USING (study_key) WHERE c.state = 'leaving'"
        ).fetchall()
    assert left == [{"uid": ct_study(3, 1)[0].study_instance_uid}]


def test_an_unsettled_study_stays(instance: Instance) -> None:
    _store(instance, ct_study(6, 2))
    assert _mover(instance, settle_s=3600).run(0, 0).objects == 0


def test_a_study_whose_association_is_open_stays(instance: Instance) -> None:
    session = instance.database.autocommit_connection()
    try:
        key = rows.open_association(instance.database, rows.open_session(session), "CT1", "127.0.0.1")
        _store(instance, ct_study(7, 2), key)
        assert _mover(instance).run(0, 0).objects == 0, "its association is open"
    finally:
        session.close()  # the receiver dies without closing it
    assert _mover(instance).run(0, 0).objects == 2, "a dead receiver's association holds nothing up"


def test_bytes_that_changed_on_tier_1_do_not_move(instance: Instance) -> None:
    _store(instance, ct_study(8, 2))
    damaged = _files(instance.volumes.tier(1)[0])[0]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    done = _mover(instance).run(0, 0)
    assert (done.objects, done.failed) == (1, 1)
    assert len(_files(instance.volumes.tier(2)[0])) == 1
    assert damaged.exists()
    assert not list((instance.volumes.tier(2)[0].root / "incoming").iterdir())


def test_a_far_side_that_loses_bytes_is_found_before_the_first_copy_goes(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk lies: what it gives back is not what was written. Simulated where bytes are read past the cache."""
    objects = ct_study(9, 1)
    _store(instance, objects)
    target = instance.volumes.tier(2)[0]
    place = target.place

    def place_and_damage(received, path):
        place(received, path)
        file = target.root / path
        content = bytearray(file.read_bytes())
        content[200] ^= 1
        file.write_bytes(content)

    monkeypatch.setattr(target, "place", place_and_damage)
    done = _mover(instance).run(0, 0)
    assert (done.objects, done.failed) == (0, 1)
    assert _files(target) == []
    _back(instance, objects)


def test_a_second_pass_after_a_kill_between_copy_and_removal_moves_nothing_twice(instance: Instance) -> None:
    objects = ct_study(10, 2)
    _store(instance, objects)
    mover = _mover(instance)
    with instance.database.transaction() as connection:
        (study,) = volume_rows.settled_studies(connection, instance.volumes.tier(1)[0].volume_id, 0)
        copies = volume_rows.study_copies_on(connection, study["study_key"], instance.volumes.tier(1)[0].volume_id)
    first = copies[0]
    mover._copy(first["object_key"], first["path"], bytes(first["sha256"]), first["size_bytes"])  # and killed here
    done = Pass()
    mover.move_study(study["study_key"], done)
    assert done.failed == 0
    assert len(_files(instance.volumes.tier(2)[0])) == 2
    with instance.database.transaction() as connection:
        row = connection.execute("SELECT count(*) AS n FROM copy WHERE state = 'good'").fetchone()
    assert row == {"n": 2}
    _back(instance, objects)


def test_the_last_good_copy_never_leaves(instance: Instance) -> None:
    objects = ct_study(11, 1)
    _store(instance, objects)
    _mover(instance).run(0, 0)
    with instance.database.transaction() as connection:
        connection.execute("UPDATE copy SET state = 'bad' WHERE state = 'good'")  # tier 2's was found bad meanwhile
    assert _mover(instance).remove_left(grace_s=0) == 0
    _back(instance, objects)
