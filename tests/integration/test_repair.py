"""Planted damage on every kind of volume: all of it is found, all that has a second copy is repaired, and nothing that
was good is touched."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pacs import clock
from pacs.archive.reconcile import reconcile
from pacs.archive.repair import Repair, Repairs
from pacs.archive.scrub import Scrub
from pacs.checks import copies as copies_check
from pacs.checks.check import Subject
from pacs.cli.instance import Instance
from pacs.errors import NotFound, PacsError
from pacs.index import store as store_rows
from pacs.index import volumes as volume_rows
from pacs.index.damage import copies_out_of_service, damage_counts, due_damage, lost_studies
from pacs.index.locks import AlreadyRunning, only_one
from pacs.jobs.worker import Worker
from pacs.model import part10
from pacs.storage.files import LocalVolume
from pacs.storage.names import repository_path
from tests.planting import SITES, LocalSite, Site, copies, damages_of, double, doubled, local_site, store
from tests.repository import add_folder, ship
from tests.serving import stored_bytes
from tests.synthetic import ct_study


@pytest.fixture(params=list(SITES))
def site(request: pytest.FixtureRequest, instance: Instance) -> Site:
    """A volume of each kind, beside tier 1."""
    return SITES[request.param](instance, request)


def scrub(instance: Instance) -> tuple[int, int]:
    findings = Scrub(instance.database, instance.volumes, timedelta(days=90)).run(everything=True)
    assert not findings.failed
    return findings.bad, findings.missing


def repair(instance: Instance) -> Repairs:
    return Repair(instance.database, instance.volumes.by_id).run(at_once=True)


def good_files(instance: Instance, site: Site, but: set[str]) -> dict[str, object]:
    """What identifies the good files of the site: their bytes, and on a file system that they are the same files."""
    found: dict[str, object] = {}
    for row in copies(instance, site.volume):
        if row["path"] in but:
            continue
        status = (site.root / row["path"]).stat() if isinstance(site, LocalSite) else None
        found[row["path"]] = site.get(row["path"]), status and (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    return found


def assert_all_good(instance: Instance) -> None:
    for row in copies(instance):
        assert row["state"] == "good"
        assert instance.volumes.get(row["volume_id"]).digest_on_disk(row["path"]) == bytes(row["sha256"])


def test_all_damage_is_found_and_repaired_and_what_was_good_is_not_touched(instance: Instance, site: Site) -> None:
    damages = damages_of(site)
    made = doubled(instance, site, len(damages) + 3)
    rows = copies(instance, site.volume)
    victims = {name: rows[number]["path"] for number, name in enumerate(damages)}
    for name, path in victims.items():
        damages[name](site, path, rows[-1]["path"])
    site.put("objects/1/readme.txt", b"somebody's")
    before = good_files(instance, site, set(victims.values()))
    assert len(before) == 3

    bad, missing = scrub(instance)
    assert bad + missing == len(damages), "every one is found"
    assert {row["path"] for row in copies_out_of_service(instance.database)} == set(victims.values())
    assert lost_studies(instance.database) == [], "all of them have another copy"

    done = repair(instance)
    assert (done.repaired, done.found_well, done.waiting) == (len(damages), 0, 0)
    assert_all_good(instance)
    assert len(copies(instance)) == 2 * len(made)
    new_paths = {row["path"] for row in copies(instance, site.volume)}
    assert not new_paths & set(victims.values()), "no path is used twice"
    assert good_files(instance, site, new_paths - set(before)) == before
    assert damage_counts(instance.database)["repaired"] == len(damages)
    assert repair(instance) == Repairs()

    findings = reconcile(instance.database, instance.volumes.all(), orphan_age_s=0)
    assert findings.is_clean
    assert scrub(instance) == (0, 0)
    assert set(site.paths("objects")) == new_paths, "what is foreign or bad was put aside"
    kept = site.paths("quarantine")
    away = {name for name, path in victims.items() if not any(Path(path).name in each for each in kept)}
    assert away <= {"gone", "a folder in its place"}, "there was nothing to keep of these; all others are kept"
    assert any(path.endswith("readme.txt") for path in kept)


def test_damage_that_a_listing_shows_is_found_by_reconciliation(instance: Instance, site: Site) -> None:
    damages = damages_of(site)
    doubled(instance, site, len(damages) + 1)
    visible = {"without its last byte", "half", "empty", "a byte more", "a page more", "gone",
               *(name for name in damages if "in its place" in name or "elsewhere" in name)}  # fmt: skip
    rows = copies(instance, site.volume)
    for number, name in enumerate(damages):
        damages[name](site, rows[number]["path"], rows[-1]["path"])
    findings = reconcile(instance.database, instance.volumes.all(), orphan_age_s=3600)
    assert findings.missing == len(visible & set(damages))
    repair(instance)
    scrub(instance)
    repair(instance)
    assert_all_good(instance)


def test_what_has_no_second_copy_is_put_aside_told_of_and_healed_by_the_next_sending(
    instance: Instance, site: Site
) -> None:
    made = doubled(instance, site, 3)
    with instance.database.transaction() as connection:
        connection.execute("DELETE FROM copy USING volume v WHERE v.volume_id = copy.volume_id AND v.tier = 1")
    session = instance.database.autocommit_connection()
    key = store_rows.open_association(instance.database, store_rows.open_session(session), "CT_ROOM_3", "192.0.2.7")
    with instance.database.transaction() as connection:
        connection.execute("UPDATE object SET association_key = %s", (key,))
    session.close()
    row = copies(instance, site.volume)[1]
    damaged = site.get(row["path"])[:-1] + b"\xff"
    site.put(row["path"], damaged)
    assert scrub(instance) == (1, 0)

    assert repair(instance) == Repairs(quarantined=1, waiting=1)
    (left,) = copies_out_of_service(instance.database)
    assert (left["state"], left["has_other"], left["tries"], left["calling_ae"]) == ("bad", False, 1, "CT_ROOM_3")
    assert left["path"].startswith("quarantine/")
    assert site.get(left["path"]) == damaged, "it is kept"
    result = copies_check.run(Subject(instance.settings, instance.database, instance.volumes))
    assert result.severity == "critical"
    assert made[0].study_instance_uid in result.message and "CT_ROOM_3" in result.message
    assert due_damage(instance.database, 10) == [], "it is not tried again at once"
    assert reconcile(instance.database, instance.volumes.all(), orphan_age_s=0).missing == 0

    store(instance, made)  # the device sends its study again
    assert lost_studies(instance.database) == []
    assert repair(instance).waiting == 0
    assert_all_good(instance)
    result = copies_check.run(Subject(instance.settings, instance.database, instance.volumes))
    assert result.severity == "ok"
    assert site.get(left["path"]) == damaged
    retrieve = instance.retrieve()
    wanted = {
        each.sop_instance_uid: each for each in retrieve.wanted({"StudyInstanceUID": [made[0].study_instance_uid]})
    }
    assert [stored_bytes(retrieve, wanted[each.sop_instance_uid]) for each in made] == [each.dataset for each in made]


def test_where_all_copies_differ_nothing_is_removed(instance: Instance, site: Site) -> None:
    doubled(instance, site, 2)
    first = LocalSite(instance.volumes.tier(1)[0], Path(instance.volumes.tier(1)[0].location))
    contents = {}
    for where in (first, site):
        row = copies(instance, where.volume)[0]
        contents[where.volume.volume_id] = where.get(row["path"])[:-2] + where.volume.volume_id[:2].encode()
        where.put(row["path"], contents[where.volume.volume_id])
    assert scrub(instance) == (2, 0)
    done = repair(instance)
    assert (done.repaired, done.waiting) == (0, 2)
    for where in (first, site):
        kept = [where.get(path) for path in where.paths("quarantine")]
        assert kept == [contents[where.volume.volume_id]]
    assert len(lost_studies(instance.database)) == 1


def test_a_bad_source_is_found_out_before_it_gets_a_name_and_another_is_taken(
    instance: Instance, site: Site, tmp_path: Path
) -> None:
    """The nearest source has gone bad unseen; what it gives is no object's, and is nowhere after."""
    (made,) = doubled(instance, site, 1)
    row = copies(instance, site.volume)[0]
    (source,) = [each for each in copies(instance) if each["copy_key"] != row["copy_key"]]
    tier1 = LocalSite(instance.volumes.tier(1)[0], Path(instance.volumes.tier(1)[0].location))
    tier1.put(source["path"], b"x" + tier1.get(source["path"])[1:])
    site.delete(row["path"])
    with instance.database.transaction() as connection:
        connection.execute("UPDATE copy SET state = 'missing' WHERE copy_key = %s", (row["copy_key"],))
    content = (
        part10.encode_file_meta(made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid) + made.dataset
    )

    assert repair(instance).waiting == 1
    assert repair(instance).waiting == 2, "no copy is left"
    assert site.paths("objects") == [] and site.paths("incoming") == []
    assert len(lost_studies(instance.database)) == 1
    repository = add_folder(instance, tmp_path / "repository", name="backup").site.volume
    sha256 = bytes(row["sha256"])
    assert repository.put(repository_path(sha256), [content[:1000], content[1000:]], len(content)) == sha256
    with instance.database.transaction() as connection:
        volume_rows.add_copy(connection, row["object_key"], repository.volume_id, repository_path(sha256))
    done = repair(instance)
    assert (done.repaired, done.waiting) == (2, 0)
    assert_all_good(instance)
    assert sum(row["path"].startswith("objects/1/2") for row in copies(instance)) == 2


@pytest.mark.parametrize("wrong", ["other bytes", "too few", "too many", "fails", "not there"])
def test_a_source_that_gives_something_else_repairs_nothing(instance: Instance, wrong: str) -> None:
    there = local_site(instance, None)  # type: ignore[arg-type]
    doubled(instance, there, 1)
    site = LocalSite(instance.volumes.tier(1)[0], Path(instance.volumes.tier(1)[0].location))
    (row,) = copies(instance, site.volume)
    content = site.get(row["path"])
    site.delete(row["path"])
    scrub(instance)

    class Unwell(LocalVolume):
        """A volume that is not well."""

        def read(self, path: str, offset: int = 0) -> Iterator[bytes]:
            if wrong == "not there":
                raise NotFound("it is not there")
            yield content[:-1] if wrong != "other bytes" else content[:-1] + bytes([content[-1] ^ 1])
            if wrong == "fails":
                raise PacsError("the network is gone")
            if wrong == "too many":
                yield content

    volumes = {**instance.volumes.by_id, there.volume.volume_id: Unwell(Path(there.volume.location), "tier2")}
    done = Repair(instance.database, volumes).run(at_once=True)
    assert done == Repairs(waiting=1, found_well=1), "the source itself, read past it, is well"
    assert site.paths("objects") == [] and site.paths("incoming") == []
    left = copies_out_of_service(instance.database)[0]
    assert "No other good copy" in left["last_error"] and left["state"] == "missing"


def test_a_copy_that_was_only_out_of_reach_is_taken_back(instance: Instance, site: Site) -> None:
    doubled(instance, site, 2)
    rows = copies(instance, site.volume)
    with instance.database.transaction() as connection:  # as a retrieve does it that could not read
        connection.execute("UPDATE copy SET state = 'bad' WHERE copy_key = %s", (rows[0]["copy_key"],))
        connection.execute("UPDATE copy SET state = 'missing' WHERE copy_key = %s", (rows[1]["copy_key"],))
    assert repair(instance) == Repairs(found_well=2)
    assert [row["path"] for row in copies(instance, site.volume)] == [row["path"] for row in rows]
    assert_all_good(instance)
    assert damage_counts(instance.database)["found_well"] == 2


def test_a_whole_file_in_quarantine_is_taken_back(instance: Instance, site: Site) -> None:
    """Its disk gave wrong bytes for a while, and there is no other copy."""
    doubled(instance, site, 1)
    row = copies(instance, site.volume)[0]
    content = site.get(row["path"])
    with instance.database.transaction() as connection:
        connection.execute("DELETE FROM copy WHERE copy_key <> %s", (row["copy_key"],))
    site.put(row["path"], content[::-1])
    scrub(instance)
    assert repair(instance).quarantined == 1
    (left,) = copies_out_of_service(instance.database)
    site.put(left["path"], content)
    assert repair(instance).repaired == 1
    assert_all_good(instance)


def test_the_worker_repairs_by_itself(instance: Instance, site: Site) -> None:
    """A retrieve finds it, nobody calls anything."""
    made = doubled(instance, site, 2)
    tier1 = LocalSite(instance.volumes.tier(1)[0], Path(instance.volumes.tier(1)[0].location))
    row = copies(instance, tier1.volume)[0]
    tier1.put(row["path"], tier1.get(row["path"])[:100])
    retrieve = instance.retrieve()
    wanted = retrieve.wanted({"SOPInstanceUID": [made[0].sop_instance_uid]})
    assert stored_bytes(retrieve, wanted[0]) == made[0].dataset
    assert len(copies_out_of_service(instance.database)) == 1
    Worker(instance.settings, instance.database, instance.journal, instance.volumes).repair()
    assert_all_good(instance)


def test_the_wait_between_tries_grows(instance: Instance) -> None:
    store(instance, ct_study(1, 1))
    with instance.database.transaction() as connection:
        connection.execute("UPDATE copy SET state = 'bad', path = 'quarantine/x'")
    waits = []
    for _try in range(14):
        repair(instance)
        (left,) = copies_out_of_service(instance.database)
        waits.append((left["next_try_at"] - clock.now()).total_seconds())
    assert all(later >= earlier - 1 for earlier, later in itertools.pairwise(waits))
    assert waits[0] < 61 and 86_000 < waits[-1] <= 86_400


def test_only_one_repairs_at_a_time(instance: Instance) -> None:
    store(instance, ct_study(1, 1))
    with instance.database.transaction() as connection:
        connection.execute("UPDATE copy SET state = 'missing'")
    with only_one(instance.database, "repair"), pytest.raises(AlreadyRunning):
        repair(instance)
    assert repair(instance).found_well == 1


def test_a_sending_that_comes_between_is_not_undone(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a repair writes, the device sends again: its copy stays, what the repair wrote goes."""
    site = LocalSite(instance.volumes.tier(2)[0], Path(instance.volumes.tier(2)[0].location))
    doubled(instance, site, 1)
    row = copies(instance, site.volume)[0]
    site.delete(row["path"])
    scrub(instance)
    work = Repair(instance.database, instance.volumes.by_id)
    real = work._commit

    def heal_first(row: dict[str, object], new_path: str, outcome: object) -> bool:
        double(instance, site.volume)  # another process's
        return real(row, new_path, outcome)  # type: ignore[arg-type]

    monkeypatch.setattr(work, "_commit", heal_first)
    done = work.run(at_once=True)
    assert done.repaired == 0
    assert_all_good(instance)
    assert len(site.paths("objects")) == 1


def test_what_is_out_of_service_can_be_listed_as_json(instance: Instance) -> None:
    store(instance, ct_study(1, 2))
    with instance.database.transaction() as connection:
        connection.execute("UPDATE copy SET state = 'missing'")
    rows = copies_out_of_service(instance.database)
    assert len(json.loads(json.dumps(rows, default=str))) == 2


def test_what_is_on_no_volume_any_more_comes_from_a_repository(instance: Instance, tmp_path: Path) -> None:
    """Both objects were shipped; the repository's file of one of them is bad as well, and nobody is given it."""
    place = add_folder(instance, tmp_path / "repository")
    site = LocalSite(instance.volumes.tier(1)[0], Path(instance.volumes.tier(1)[0].location))
    store(instance, ct_study(1, 2))
    ship(instance, place.repository)
    ours, theirs = copies(instance, site.volume), copies(instance, place.site.volume)
    for row in ours:
        site.delete(row["path"])
    place.site.put(theirs[0]["path"], b"bad too")
    scrub(instance)
    Worker(instance.settings, instance.database, instance.journal, instance.volumes).repair()
    assert [row["state"] for row in copies(instance, site.volume)] == ["missing", "good"]
    assert [row["state"] for row in copies(instance, place.site.volume)] == ["bad", "good"]
    (tmp_path / "repository").rename(tmp_path / "away")
    assert Repair(instance.database, instance.volumes.by_id).run(at_once=True).waiting == 2
