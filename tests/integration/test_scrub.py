"""Scrubbing: every copy is read in its time, in shares, and a kill costs a batch; what is said of it is true."""

from __future__ import annotations

import multiprocessing
import re
from datetime import timedelta
from pathlib import Path

import pytest

from pacs import clock
from pacs.archive import scrub as scrubbing
from pacs.archive.fixity import fixity
from pacs.archive.scrub import Findings, Progress, Scrub
from pacs.checks import fixity as fixity_check
from pacs.checks import metrics
from pacs.checks.check import Subject, run_all
from pacs.checks.registry import CHECKS
from pacs.cli.instance import Instance
from pacs.index import fixity as rows
from pacs.index.damage import copies_out_of_service
from pacs.index.locks import AlreadyRunning, only_one
from pacs.index.runs import record_run
from tests.planting import LocalSite, copies, double, store
from tests.synthetic import ct_study

PERIOD = timedelta(days=90)


def scrub(instance: Instance, everything: bool = False, volume_id: str | None = None) -> Findings:
    return Scrub(instance.database, instance.volumes, PERIOD).run(everything, volume_id)


def tier(instance: Instance, number: int) -> LocalSite:
    volume = instance.volumes.tier(number)[0]
    return LocalSite(volume, Path(volume.location))


def store_on_days(instance: Instance, days: dict[int, int]) -> None:
    """Store a study for each day: so many days ago → objects. Their files and rows are as if they had come then."""
    site = tier(instance, 1)
    for seed, (ago, objects) in enumerate(days.items(), 1):
        before = {row["path"] for row in copies(instance)}
        store(instance, ct_study(seed, objects))
        when = clock.now() - timedelta(days=ago)
        for row in copies(instance):
            if row["path"] not in before:
                path = f"objects/1/{when:%Y/%m/%d}/" + row["path"].split("/", 5)[5]
                content = site.get(row["path"])
                site.delete(row["path"])
                site.put(path, content)
                with instance.database.transaction() as connection:
                    connection.execute(
                        "UPDATE copy SET path = %s, created_at = %s WHERE copy_key = %s", (path, when, row["copy_key"])
                    )


def subject(instance: Instance) -> Subject:
    return Subject(instance.settings, instance.database, instance.volumes)


def test_an_empty_archive_and_a_young_one_have_nothing_due(instance: Instance) -> None:
    assert scrub(instance).copies == 0
    store(instance, ct_study(1, 3))
    assert scrub(instance).copies == 0
    assert scrub(instance, everything=True).copies == 3


def test_what_was_read_is_not_due_again_and_what_comes_after_counts_from_its_coming(instance: Instance) -> None:
    store_on_days(instance, {80: 3, 70: 2})
    first = scrub(instance)
    assert (first.copies, first.folders) == (3, 1), "the oldest day first, and a share of it all"
    assert scrub(instance).copies == 2
    assert scrub(instance).copies == 0
    before = {each.folder: each.verified_at for each in rows.folders(instance.database, instance.volumes.by_id)}
    assert all(clock.now() - when < timedelta(minutes=5) for when in before.values())

    with (
        instance.database.transaction() as connection
    ):  # 46 days go by; then a study of one of the days comes to tier 2
        connection.execute("UPDATE fixity SET verified_at = verified_at - interval '46 days'")
        connection.execute("UPDATE copy SET created_at = created_at - interval '46 days'")
    double(instance, tier(instance, 2).volume)
    found = fixity(instance.database, instance.volumes, PERIOD)
    assert found.since is not None and (clock.now() - found.since).days == 46
    rows.refresh_folders(instance.database, tier(instance, 2).volume.volume_id, scrubbing.COUNT_AGE)
    newest = rows.folders(instance.database, [tier(instance, 2).volume.volume_id])
    assert all(clock.now() - each.verified_at < timedelta(minutes=5) for each in newest), "written and read back now"
    assert scrub(instance).copies > 0, "the first volume's turn has come again"


def test_a_killed_scrub_goes_on_where_it_was(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrubbing, "BATCH_COPIES", 10)
    store_on_days(instance, {60: 35})

    def die(progress: Progress) -> None:
        if progress.done_bytes > progress.total_bytes * 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Scrub(instance.database, instance.volumes, PERIOD, on_progress=die).run()
    (folder,) = rows.folders(instance.database, instance.volumes.by_id)
    assert folder.is_begun and (clock.now() - folder.verified_at).days == 60, "half a reading counts for nothing yet"
    rest = scrub(instance)
    assert (rest.copies, rest.folders) == (15, 1)
    (folder,) = rows.folders(instance.database, instance.volumes.by_id)
    assert not folder.is_begun and clock.now() - folder.verified_at < timedelta(minutes=5)


def test_a_reading_counts_from_its_beginning(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """It took two weeks with a break, so what was read first was read two weeks ago."""
    monkeypatch.setattr(scrubbing, "BATCH_COPIES", 10)
    store_on_days(instance, {60: 20})

    def die(_progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Scrub(instance.database, instance.volumes, PERIOD, on_progress=die).run()
    with instance.database.transaction() as connection:
        connection.execute("UPDATE fixity SET begun_at = begun_at - interval '14 days'")
    assert scrub(instance).copies == 10
    (folder,) = rows.folders(instance.database, instance.volumes.by_id)
    assert (clock.now() - folder.verified_at).days == 14


def test_one_volume_alone_can_be_read(instance: Instance) -> None:
    store(instance, ct_study(1, 4))
    double(instance, tier(instance, 2).volume)
    findings = scrub(instance, everything=True, volume_id=tier(instance, 2).volume.volume_id)
    assert findings.copies == 4
    assert scrub(instance, everything=True).copies == 8


def test_batches_end_at_so_many_bytes_too(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrubbing, "BATCH_BYTES", 20_000)
    store(instance, ct_study(1, 9))
    seen: list[int] = []
    Scrub(instance.database, instance.volumes, PERIOD, on_progress=lambda each: seen.append(each.done_bytes)).run(
        everything=True
    )
    assert len(seen) == 3 and seen == sorted(set(seen))


def test_a_copy_that_moves_while_it_is_read_is_not_blamed(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row has gone on to another path, or is leaving, when its file is found gone."""
    store(instance, ct_study(1, 3))
    site = tier(instance, 1)
    listed = rows.copies_after

    def list_then_move(*words: object) -> object:
        found = listed(*words)  # type: ignore[arg-type]
        if found:
            site.delete(found[0]["path"])
            with instance.database.transaction() as connection:
                connection.execute("UPDATE copy SET state = 'leaving' WHERE copy_key = %s", (found[0]["copy_key"],))
        return found

    monkeypatch.setattr(rows, "copies_after", list_then_move)
    findings = Scrub(instance.database, instance.volumes, PERIOD).run(everything=True)
    assert (findings.bad, findings.missing) == (0, 0)
    assert copies_out_of_service(instance.database) == []


def test_a_volume_of_which_nothing_can_be_read_is_one_fault_and_not_a_thousand(instance: Instance) -> None:
    store(instance, ct_study(1, 60))
    site = tier(instance, 1)
    for row in copies(instance):
        content = site.root / row["path"]
        content.rename(content.with_suffix(".real"))
        content.symlink_to(content.with_suffix(".real"))
    findings = scrub(instance, everything=True)
    assert len(findings.failed) == 1 and not findings.is_clean
    assert copies_out_of_service(instance.database) == []
    assert all(each.is_begun for each in rows.folders(instance.database, instance.volumes.by_id))


def test_a_volume_that_is_gone_is_told_of_and_the_others_are_read(instance: Instance) -> None:
    store(instance, ct_study(1, 3))
    double(instance, tier(instance, 2).volume)
    root = tier(instance, 1).root
    root.rename(root.with_name("unplugged"))
    findings = scrub(instance, everything=True)
    assert findings.copies == 3 and len(findings.failed) == 1
    assert copies_out_of_service(instance.database) == []


def test_folders_that_are_empty_now_are_forgotten(instance: Instance) -> None:
    store_on_days(instance, {3: 2, 2: 2, 1: 2})
    volume_id = tier(instance, 1).volume.volume_id
    rows.refresh_folders(instance.database, volume_id, scrubbing.COUNT_AGE)
    assert len(rows.folders(instance.database, [volume_id])) == 3
    with instance.database.transaction() as connection:
        connection.execute("DELETE FROM copy WHERE created_at < now() - interval '60 hours'")
    rows.refresh_folders(instance.database, volume_id, scrubbing.COUNT_AGE)
    assert [each.copies for each in rows.folders(instance.database, [volume_id])] == [2, 2]


def test_only_one_scrub_runs_at_a_time(instance: Instance) -> None:
    with only_one(instance.database, "scrub"):
        assert fixity(instance.database, instance.volumes, PERIOD).is_running
        with pytest.raises(AlreadyRunning) as caught:
            scrub(instance)
        with only_one(instance.database, "reconcile"):
            pass
    assert "pacs scrub status" in str(caught.value)
    assert not fixity(instance.database, instance.volumes, PERIOD).is_running
    scrub(instance)


# --- what is said of it ----------------------------------------------------------------------------------------------


def test_the_check_tells_of_what_is_overdue(instance: Instance) -> None:
    assert fixity_check.run(subject(instance)).severity == "ok"
    store_on_days(instance, {120: 2, 1: 2})
    result = fixity_check.run(subject(instance))
    assert (result.severity, result.message) == ("warning", "the scrub never ran")
    rows.refresh_folders(instance.database, tier(instance, 1).volume.volume_id, scrubbing.COUNT_AGE)
    record_run(instance.database, "scrub", clock.now(), True, {"failed": []})
    result = fixity_check.run(subject(instance))
    assert result.severity == "warning" and result.message.startswith("2 copies")
    scrub(instance)
    result = fixity_check.run(subject(instance))
    assert result.severity == "ok" and "every copy was read since" in result.message
    record_run(instance.database, "scrub", clock.now(), False, {"failed": ["tier 2 is gone"]})
    assert "tier 2 is gone" in fixity_check.run(subject(instance)).message
    record_run(instance.database, "scrub", clock.now(), True, {"failed": []})
    with instance.database.transaction() as connection:
        connection.execute("UPDATE run SET finished_at = finished_at - interval '4 days'")
    assert "4 days ago" in fixity_check.run(subject(instance)).message


def test_the_metrics_are_well_formed_and_tell_what_there_is(instance: Instance) -> None:
    store_on_days(instance, {120: 2, 1: 3})
    scrub(instance)
    record_run(instance.database, "reconcile", clock.now(), True, {"files": 5, "failed": []})
    with instance.database.transaction() as connection:
        connection.execute("UPDATE copy SET state = 'missing' WHERE copy_key = (SELECT min(copy_key) FROM copy)")
    text = metrics.render(metrics.metrics(subject(instance), run_all(subject(instance), CHECKS)))
    lines = text.splitlines()
    sample = re.compile(r'[a-z_]+(\{[a-z_]+="[^"\\]*"(,[a-z_]+="[^"\\]*")*\})? -?[0-9.e+-]+')
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in lines)
    named = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(named) == len(set(named))
    for expected in (
        "pacs_objects 5", "pacs_copies_lost 1", "pacs_objects_lost 1", 'pacs_scrub_copies{volume="tier1"} 5',
        'pacs_check_severity{check="copies"} 2', 'pacs_reconcile_found{what="files"} 5',
        'pacs_run_succeeded{kind="reconcile"} 1', 'pacs_scrub_overdue_copies{volume="tier1"} 0',
    ):  # fmt: skip
        assert expected in lines, expected
    assert "2.25." not in text, "no UID of an object is in it"


def test_labels_are_escaped() -> None:
    metric = metrics.Metric("pacs_x", "gauge", "X.", [({"volume": 'a"b\\c\nd'}, 1)])
    assert metrics.render([metric]).splitlines()[-1] == r'pacs_x{volume="a\"b\\c\nd"} 1'


def test_many_copies_are_read_by_processes_and_what_is_wrong_is_found_all_the_same(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrubbing, "PROCESSES_FROM_COPIES", 0)
    store(instance, ct_study(1, 9))
    site = tier(instance, 1)
    bad, missing = (row["path"] for row in copies(instance)[3:5])
    site.put(bad, b"x" + site.get(bad)[1:])
    site.delete(missing)
    findings = scrub(instance, everything=True)
    assert (findings.copies, findings.bad, findings.missing, findings.failed) == (9, 1, 1, [])
    assert multiprocessing.active_children() == []
