"""Studies of tier 3 that are asked for: given at once, recalled once, with their priors, and back down later."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from pacs.archive import tiering
from pacs.archive.asking import Asking, Priors
from pacs.archive.recall import ATTEMPTS_MAX
from pacs.archive.transfer import Transfer
from pacs.cli.instance import Instance
from pacs.errors import NotFound, VolumeFull
from pacs.index import recalls, tiers
from pacs.model.tier_rules import Rule
from pacs.storage.files import LocalVolume
from pacs.storage.reading import LocalFile
from tests import peer
from tests.serving import CT, serving
from tests.synthetic import SyntheticObject, ct_dataset, ct_study, encode
from tests.tiers import add_volume, assert_each_object_is_safe, files, follow, good_by_tier, mover, recall, store

EXPLICIT = "1.2.840.10008.1.2.1"
FAR = Rule("far", 1, 3)


@pytest.fixture
def far(instance: Instance) -> Instance:
    """An instance with a third tier."""
    add_volume(instance, 3, "far1")
    return instance


def _send_far(instance: Instance, *studies: list[SyntheticObject]) -> None:
    for objects in studies:
        store(instance, objects)
    follow(instance, FAR)
    with mover(instance) as moving:
        moving.remove_left(grace_s=0)
    assert good_by_tier(instance) == {3: sum(map(len, studies))}


def _open_recalls(instance: Instance) -> dict[str, str]:
    return {
        row["study_instance_uid"]: row["why"]
        for row in recalls.list_recalls(instance.database, 100)
        if row["state"] == "open"
    }


def _study(
    seed: int, date: str, modality: str = "CT", body_part: str = "", patient: str = "P1"
) -> list[SyntheticObject]:
    ds = ct_dataset(seed, rows=8, columns=8)
    ds.PatientID, ds.PatientName, ds.StudyDate = patient, "A^B", date
    ds.Modality, ds.BodyPartExamined = modality, body_part
    return [encode(ds)]


def _ask(instance: Instance, objects: list[SyntheticObject], priors: Priors) -> None:
    with instance.database.transaction() as connection:
        key = tiers.study_key_of(connection, objects[0].study_instance_uid)
    asking = Asking(instance.database, priors)
    asking.note([key], [key])
    asking.close()


def test_a_retrieve_from_tier_3_is_answered_at_once_and_recalls_the_whole_study(far: Instance) -> None:
    objects = ct_study(1, 4)
    _send_far(far, objects)
    uid = objects[0].study_instance_uid
    with serving(far) as port:
        came = peer.get(port, [uid], [(CT, EXPLICIT)])
    assert {each.sop_instance_uid: each.dataset for each in came.values()} == {
        made.sop_instance_uid: made.dataset for made in objects
    }
    assert _open_recalls(far) == {uid: "asked"}
    assert recall(far) == 1
    assert good_by_tier(far) == {2: 4, 3: 4}, "the copy on tier 3 stays"
    assert_each_object_is_safe(far)
    (done,) = recalls.list_recalls(far.database, 10)
    assert (done["state"], done["objects"]) == ("done", 4)
    with serving(far) as port:
        peer.get(port, [uid], [(CT, EXPLICIT)])
    assert _open_recalls(far) == {}, "it is at hand"


def test_however_many_ask_there_is_one_recall(far: Instance) -> None:
    objects = ct_study(2, 2)
    _send_far(far, objects)
    uid = objects[0].study_instance_uid
    retrieve = far.retrieve()
    threads = [threading.Thread(target=retrieve.wanted, args=({"StudyInstanceUID": [uid]},)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(recalls.list_recalls(far.database, 100)) == 1
    assert recall(far) == 1
    assert len(files(far.volumes, 2)) == 2


def test_an_object_asked_for_alone_brings_the_rest_of_its_study(far: Instance) -> None:
    objects = ct_study(3, 3)
    _send_far(far, objects)
    far.retrieve().wanted({"SOPInstanceUID": [objects[1].sop_instance_uid]})
    assert recall(far) == 1
    assert good_by_tier(far) == {2: 3, 3: 3}


def test_relevant_priors_come_too_bounded_by_count_and_age(far: Instance) -> None:
    now = _study(10, "20260601", "CT", "CHEST")
    studies = {
        "older": _study(11, "20250601", "CT"),
        "newer": _study(12, "20260101", "CT"),
        "body part": _study(13, "20260301", "MR", "CHEST"),
        "another": _study(14, "20260401", "US", "KNEE"),
        "too old": _study(15, "20100101", "CT"),
        "later": _study(16, "20260901", "CT"),
        "other patient": _study(17, "20260101", "CT", patient="P2"),
    }
    _send_far(far, now, *studies.values())
    _ask(far, now, Priors(2, 5 * 365))

    def asked() -> set[str]:
        uids = {objects[0].study_instance_uid: name for name, objects in studies.items()}
        return {uids[uid] for uid, why in _open_recalls(far).items() if why == "prior"}

    assert asked() == {"body part", "newer"}
    _ask(far, now, Priors(10, 5 * 365))
    assert asked() == {"body part", "newer", "older"}
    (first, *_others) = recalls.due(far.database, 10)
    with far.database.transaction() as connection:
        assert first["study_key"] == tiers.study_key_of(connection, now[0].study_instance_uid), "who waits is first"


def test_a_recalled_study_goes_back_down_without_being_copied_and_not_too_soon(far: Instance) -> None:
    objects = ct_study(4, 3)
    _send_far(far, objects)
    tiering.recall(far.database, objects[0].study_instance_uid)
    assert recall(far) == 1
    down = Rule("down", 2, 3)
    assert follow(far, down, recall_keep_s=3600).objects == 0, "it was recalled just now"
    before = files(far.volumes, 3)
    assert follow(far, down).objects == 3
    assert files(far.volumes, 3) == before
    assert good_by_tier(far) == {3: 3}


def test_a_study_recalled_within_the_grace_time_is_not_copied_either(far: Instance) -> None:
    objects = ct_study(5, 3)
    store(far, objects)
    follow(far, FAR)
    before = files(far.volumes, 1)
    assert len(before) == 3, "its files are there yet"
    far.retrieve().wanted({"StudyInstanceUID": [objects[0].study_instance_uid]})
    assert recall(far) == 1
    assert good_by_tier(far) == {1: 3, 3: 3}
    assert (files(far.volumes, 1), files(far.volumes, 2)) == (before, [])
    assert_each_object_is_safe(far)


def test_a_device_that_waits_for_a_slow_volume_is_told_so(far: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """The volume gives nothing before the device has had two pending responses."""
    objects = ct_study(24, 2)
    _send_far(far, objects)
    (slow,) = far.volumes.tier(3)
    assert isinstance(slow, LocalVolume)
    monkeypatch.setattr(slow, "promise", replace(slow.promise, kind="nfs"))
    told, opened = threading.Event(), slow.open

    def open_late(path: str) -> LocalFile:
        assert told.wait(30), "the device was not told that it is waited for"
        return opened(path)

    monkeypatch.setattr(slow, "open", open_late)
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", objects[0].study_instance_uid
    taken: dict[str, peer.RawObject] = {}
    statuses = []
    contexts = [(peer.STUDY_ROOT_GET, EXPLICIT), (CT, EXPLICIT)]
    with (
        serving(far, retrieve_progress_s=0.1) as port,
        peer.associated(port, contexts, taken=taken) as assoc,
    ):
        for status, _identifier in assoc.send_c_get(query, peer.STUDY_ROOT_GET):
            statuses.append(int(status.Status))
            if len(statuses) == 2:
                assert not taken
                told.set()
    assert statuses[:2] == [0xFF00, 0xFF00]
    assert statuses[-1] == 0x0000
    assert {each.dataset for each in taken.values()} == {made.dataset for made in objects}


def test_what_is_at_hand_is_not_recalled(far: Instance) -> None:
    objects = ct_study(6, 1)
    store(far, objects)
    assert not tiering.recall(far.database, objects[0].study_instance_uid)
    with pytest.raises(NotFound, match="no study 1.2.3"):
        tiering.recall(far.database, "1.2.3")


def test_a_recall_that_fails_says_why_is_tried_again_and_given_up(far: Instance) -> None:
    objects = ct_study(7, 2)
    _send_far(far, objects)
    uid = objects[0].study_instance_uid
    tiering.recall(far.database, uid)
    (row,) = [row for row in far.volumes.rows if row.tier == 3]
    root = Path(row.location)
    root.rename(root.with_name("away"))
    far.volumes.refresh()
    for _ in range(ATTEMPTS_MAX):
        assert recall(far) == 0
        _let_it_be_due(far)
    (failed,) = recalls.list_recalls(far.database, 10)
    assert (failed["state"], failed["attempts"]) == ("failed", ATTEMPTS_MAX)
    assert "far1" in failed["last_error"]
    assert [row["study_instance_uid"] for row in recalls.failed_lately(far.database, 1)] == [uid]
    root.with_name("away").rename(root)
    far.volumes.refresh()
    tiering.recall(far.database, uid)
    assert recall(far) == 1, "asked for again, it begins anew"
    assert recalls.failed_lately(far.database, 1) == []


def _let_it_be_due(instance: Instance) -> None:
    with instance.database.transaction() as connection:
        connection.execute("UPDATE recall SET next_try_at = now()")


def test_a_retrieve_of_what_is_not_at_hand_says_which_volume_it_waits_for(far: Instance) -> None:
    objects = ct_study(8, 1)
    _send_far(far, objects)
    (row,) = [row for row in far.volumes.rows if row.tier == 3]
    Path(row.location).rename(Path(row.location).with_name("away"))
    far.volumes.refresh()
    retrieve = far.retrieve()
    (wanted,) = retrieve.wanted({"StudyInstanceUID": [objects[0].study_instance_uid]})
    with pytest.raises(NotFound, match="far1"):
        retrieve.open(wanted)


def test_where_its_tier_has_no_room_a_study_comes_to_the_other(far: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = ct_study(9, 2)
    _send_far(far, objects)
    tiering.recall(far.database, objects[0].study_instance_uid)
    (large,) = far.volumes.tier(2)

    def no_room(size_bytes: int = 0) -> None:
        raise VolumeFull

    monkeypatch.setattr(large, "require_room", no_room)
    assert recall(far) == 1
    assert good_by_tier(far) == {1: 2, 3: 2}


def test_a_recall_killed_in_the_middle_is_taken_up_again(far: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacs.archive.batches.BATCH_OBJECTS", 2)
    objects = ct_study(20, 6)
    _send_far(far, objects)
    tiering.recall(far.database, objects[0].study_instance_uid)
    put = Transfer._put

    class Killed(BaseException):
        pass

    def die_at_the_third(self, batch, *words):  # type: ignore[no-untyped-def]
        if good_by_tier(far).get(2, 0) >= 2:
            raise Killed
        return put(self, batch, *words)

    monkeypatch.setattr(Transfer, "_put", die_at_the_third)
    with pytest.raises(Killed):
        recall(far)
    assert 0 < good_by_tier(far)[2] < 6
    monkeypatch.setattr(Transfer, "_put", put)
    assert recall(far) == 1
    assert good_by_tier(far) == {2: 6, 3: 6}
    assert len(files(far.volumes, 2)) == 6


def test_use_is_written_behind_at_most_once_an_hour(instance: Instance) -> None:
    objects = ct_study(21, 1)
    store(instance, objects)

    def used() -> list[object]:
        with instance.database.transaction() as connection:
            return [row["xmin"] for row in connection.execute("SELECT xmin::text FROM study_use").fetchall()]

    with instance.database.transaction() as connection:
        key = tiers.study_key_of(connection, objects[0].study_instance_uid)
    first, second = Asking(instance.database), Asking(instance.database)  # of two processes
    first.note([key], [])
    assert used() == [], "not in the way of the retrieve"
    first.close()
    written = used()
    assert len(written) == 1
    for each in (first, second):
        each.note([key], [])
        each.close()
    assert used() == written
    with instance.database.transaction() as connection:
        connection.execute("UPDATE study_use SET used_at = now() - interval '2 hours'")
    before = used()
    second._written_s.clear()
    second.note([key], [])
    second.close()
    assert used() != before


def test_the_oldest_copy_is_recalled_from_whichever_of_two_far_volumes_is_good(far: Instance) -> None:
    """One far copy is damaged: the other one is taken at the next try, and the bad one is out of service."""
    objects = ct_study(22, 2)
    _send_far(far, objects)
    add_volume(far, 3, "far2")
    with far.database.transaction() as connection:
        rows = connection.execute(
            "SELECT c.copy_key, c.object_key, c.path, v.location FROM copy c JOIN volume v USING (volume_id)"
        ).fetchall()
        second = next(row for row in far.volumes.rows if row.name == "far2")
        for row in rows:
            target = Path(second.location) / row["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((Path(row["location"]) / row["path"]).read_bytes())
            connection.execute(
                "INSERT INTO copy (tenant_id, object_key, volume_id, path) VALUES (1, %s, %s, %s)",
                (row["object_key"], second.volume_id, row["path"]),
            )
    damaged = Path(rows[0]["location"]) / rows[0]["path"]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    tiering.recall(far.database, objects[0].study_instance_uid)
    recall(far)
    _let_it_be_due(far)
    assert recall(far) == 1
    assert good_by_tier(far) == {2: 2, 3: 3}
    assert_each_object_is_safe(far)


def test_default_rule_copies_recalled_studies_to_tier_2_and_keeps_tier_3(far: Instance) -> None:
    objects = ct_study(23, 2)
    _send_far(far, objects)
    tiering.recall(far.database, objects[0].study_instance_uid)
    assert recall(far, tier=1) == 1
    assert good_by_tier(far) == {1: 2, 3: 2}
    assert follow(far, replace(FAR, to_tier=2)).objects == 2
    assert good_by_tier(far) == {2: 2, 3: 2}
