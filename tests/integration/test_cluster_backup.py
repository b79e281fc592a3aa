"""The database backed up, lost and brought back: to the newest state, to a point, to a time. What is damaged never
passes for whole, and a repository that is away holds nobody up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pacs.backup import cluster_backup
from pacs.backup.cluster_verify import look_at, verify
from pacs.backup.configuration import Configuration
from pacs.backup.points import PointMaker, Target, expire, parse_point, point_content, point_named, points
from pacs.backup.repositories import Repository, open_volume
from pacs.backup.running import is_due, run_backup, run_configuration
from pacs.cli.instance import open_instance
from pacs.errors import NotFound, PacsError, RestoreError, VolumeError
from pacs.jobs.database_backup import DatabaseBackup
from pacs.storage.kinds import Volume
from tests.certificates import make_certificate
from tests.fix_bucket import Bucket, write_credentials
from tests.fix_cluster import Site
from tests.mounted import file_system
from tests.remote.faulty import FaultyEndpoint
from tests.remote.swift import ACCESS_KEY, SECRET_KEY


@pytest.fixture(scope="module")
def usb(site: Site) -> Repository:
    """A repository with a full backup, of a database with a schema and one row."""
    site.note("a: before the first backup")
    repository = site.add_folder("usb")
    assert run_backup(site.data, repository).backup.kind == "full"
    return repository


@pytest.fixture
def beside(site: Site, usb: Repository) -> Iterator[Repository]:
    """A second repository for one test, with a backup."""
    repository = site.add_folder(f"b{uuid.uuid4().hex[:8]}")
    run_backup(site.data, repository)
    yield repository
    site.forget(repository.name)
    site.tidy()


def point_maker(site: Site) -> PointMaker:
    return PointMaker(site.database, site.spool, site.keyring, "appliance", every_s=0)


def repository_volume(site: Site, repository: Repository) -> Volume:
    return open_volume(repository, site.keyring)


def test_newest_point_and_time_come_back(site: Site, usb: Repository) -> None:
    maker, volume = point_maker(site), repository_volume(site, usb)
    target = Target(usb.name, volume, lambda _key: False)
    site.note("b: before the point")
    assert maker.run([target]) == [], "the log up to it is not there yet"
    site.note("c: after the point")
    site.end_segment()
    site.ship("usb")
    [(_name, point)] = maker.run([target])
    moment = site.note("d: before the moment")
    site.note("e: after the moment")
    assert run_backup(site.data, usb).backup.kind == "incr"
    site.note("f: after the last backup")
    site.end_segment()
    assert site.ship("usb")
    site.tidy()
    assert site.spool.names() == [], "what every repository has leaves the spool"

    everything = ["a: before the first backup", "b: before the point", "c: after the point", "d: before the moment",
                  "e: after the moment", "f: after the last backup"]  # fmt: skip
    assert site.restore("usb").notes() == everything
    found = point_named(volume, site.keyring, point.name)
    assert site.restore("usb", point=found).notes() == everything[:2]
    assert site.restore("usb", time=datetime.fromisoformat(moment)).notes() == everything[:4]
    with pytest.raises(RestoreError, match="ends before the time"):
        site.restore("usb", time=datetime.now(UTC) + timedelta(days=1))
    with pytest.raises(NotFound, match="no backup of the database that reaches back"):
        site.restore("usb", time=datetime.now(UTC) - timedelta(days=1))


@pytest.mark.long
def test_a_kept_cluster_is_restored_again(site: Site, usb: Repository) -> None:
    restored = site.restore("usb")
    before = restored.notes()
    site.note("z: of another day")
    site.end_segment()
    site.ship("usb")
    (restored.made.folder / "postmaster.pid").write_text("1\n")  # its server was killed
    from pacs.backup.cluster import restore_cluster
    from pacs.cli.dev import unprivileged_user

    user = unprivileged_user(site.folder)
    with pytest.raises(RestoreError, match="not empty"):
        restore_cluster(usb, site.keyring, restored.made.folder, user=user)
    restore_cluster(usb, site.keyring, restored.made.folder, user=user, delta=True)
    assert restored.notes() == [*before, "z: of another day"]
    site.execute("DELETE FROM note WHERE words LIKE 'z%'")


def test_a_point_counts_only_with_all_its_objects(site: Site, usb: Repository) -> None:
    maker, lacks = point_maker(site), True
    target = Target(usb.name, repository_volume(site, usb), lambda _key: lacks)
    site.note("p")
    maker.run([target])
    site.end_segment()
    site.ship("usb")
    assert maker.run([target]) == []
    lacks = False
    assert len(maker.run([target])) == 1
    site.execute("DELETE FROM note WHERE words = 'p'")


def test_a_point_is_signed_and_goes_with_its_backup(site: Site, usb: Repository) -> None:
    volume = repository_volume(site, usb)
    maker, target = point_maker(site), Target(usb.name, repository_volume(site, usb), lambda _key: False)
    maker.run([target])
    site.end_segment()
    site.ship("usb")
    [(_name, point)] = maker.run([target])
    content = point_content(point, site.keyring)
    assert parse_point(content, site.keyring) == point
    with pytest.raises(RestoreError, match="damaged, or not this appliance's"):
        parse_point(content.replace(point.label.encode(), b"20200101-000000F"), site.keyring)
    volume.replace_small("points/20200101T000000_000Z.json", b"{}")
    assert point in points(volume, site.keyring), "one that is damaged does not hide the others"
    assert expire(volume, site.keyring, site.labels("usb")) == 0
    assert expire(volume, site.keyring, []) >= 1
    assert points(volume, site.keyring) == []


def test_a_repository_that_is_away_holds_nobody_up(site: Site, usb: Repository, beside: Repository) -> None:
    place = Path(beside.place)
    gone = place.rename(place.with_name("gone"))
    place.touch()  # what is there is no folder: nothing can be written
    segment = site.end_segment()
    site.ship(beside.name)
    site.ship("usb")
    assert site.log("usb").read().last_segment == segment, "the other has it"
    state = site.log(beside.name).read()
    assert state.error and state.failed_since and state.last_segment != segment
    assert site.tidy() == [] and segment in site.spool.names(), "it waits"

    site.end_segment()
    site.ship("usb")
    assert site.tidy(room_bytes=0) == [beside.name], "there is no room for more: it is given up"
    newest = site.end_segment()
    site.ship("usb")
    assert site.tidy(room_bytes=0) == [], "it has its gap already"
    assert site.spool.names() == [newest], "but for the newest, to try with"
    assert site.archived() == newest, "PostgreSQL never waited"
    state = site.log(beside.name).read()
    assert state.gap_since and state.is_dropping
    assert site.log("usb").read().gap_since is None
    assert not is_due(state, datetime.now(UTC) + timedelta(hours=1)), "as long as it is away"

    place.unlink()
    gone.rename(place)
    assert site.ship(beside.name) == 1
    state = site.log(beside.name).read()
    assert state.gap_since and not state.is_dropping and state.error is None
    assert is_due(state, datetime.now(UTC) + timedelta(hours=1))
    volume = repository_volume(site, beside)
    assert point_maker(site).run([Target(beside.name, volume, lambda _key: False)]) == [], "no point in a gap"
    run_backup(site.data, beside)
    assert site.log(beside.name).read().gap_since is None
    expected = sorted(site.restore("usb").notes())
    assert site.restore(beside.name).notes() == expected


def test_an_empty_folder_in_its_place_gets_nothing(site: Site, usb: Repository) -> None:
    place = Path(usb.place)
    away = place.rename(place.with_name("unmounted"))
    place.mkdir()
    with pytest.raises(VolumeError):
        run_backup(site.data, usb)
    with pytest.raises(VolumeError):
        run_configuration(site.data, usb)
    site.end_segment()
    site.ship("usb")
    assert list(place.iterdir()) == []
    place.rmdir()
    away.rename(place)


def test_postgresql_drops_its_log_itself_when_nobody_makes_room(site: Site, usb: Repository) -> None:
    site.ship("usb")
    site.tidy()
    (site.spool.folder / "limit_kib").write_text("0\n")
    segment = site.end_segment()
    assert segment not in site.spool.names() and site.archived() == segment
    assert site.spool.is_broken
    assert site.tidy() == ["usb"]
    assert site.log("usb").read().gap_since
    run_backup(site.data, usb)
    assert site.log("usb").read().gap_since is None


@pytest.mark.long
@pytest.mark.parametrize("options", ["ro", "full"])
def test_a_repository_that_is_read_only_or_full(site: Site, usb: Repository, options: str) -> None:
    with file_system(site.folder / f"disk-{options}", size_mib=160) as disk:
        disk.root.chmod(0o755)
        repository = site.add(f"disk-{options}", str(disk.root))
        try:
            run_backup(site.data, repository)
            known = site.labels(repository.name)
            if options == "ro":
                disk.remount("ro")
            else:
                with open(disk.root / "filler", "wb") as filler, pytest.raises(OSError):
                    while True:
                        os.write(filler.fileno(), bytes(1 << 20))
            site.execute("CREATE TABLE large AS SELECT md5(n::text) AS words FROM generate_series(1, 20000) n")
            site.end_segment()
            site.ship(repository.name)
            assert site.log(repository.name).read().error
            with pytest.raises(PacsError):
                run_backup(site.data, repository, "full")
            assert site.log(repository.name).read().backup_error
            assert site.labels(repository.name) == known, "what was there counts"
            if options == "ro":
                disk.remount("rw")
            else:
                (disk.root / "filler").unlink()
            run_backup(site.data, repository)
            assert len(site.labels(repository.name)) == len(known) + 1
            assert site.log(repository.name).read().backup_error is None
        finally:
            site.execute("DROP TABLE IF EXISTS large")
            site.forget(repository.name)


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        ("archive", "missing"),
        pytest.param("backup", "flipped", marks=pytest.mark.long),
        pytest.param("archive", "flipped", marks=pytest.mark.long),
    ],
)
def test_a_flipped_byte_and_a_missing_file_are_found(site: Site, beside: Repository, part: str, damage: str) -> None:
    assert verify(site.data, beside.name) == []
    [made] = cluster_backup.backups(site.data, beside.name)
    wanted = f"{made.first_segment}-*" if part == "archive" else f"{made.label}/**/*"
    found = [path for path in Path(beside.place, "pgbackrest", part).rglob(wanted) if path.is_file()]
    victim = max(found, key=lambda path: path.stat().st_size)
    if damage == "missing":
        victim.unlink()
    else:
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 0x40
        victim.write_bytes(content)
    assert verify(site.data, beside.name) != []
    with pytest.raises(RestoreError):
        site.restore(beside.name)


def test_everything_is_verified_and_a_copied_repository_goes_on(site: Site, beside: Repository) -> None:
    assert [each.is_well for each in look_at(site.data, beside, site.keyring)] == [True, True]
    latest = Path(beside.place, "pgbackrest", "backup", "pacs", "latest")
    kept = latest.resolve()
    latest.unlink()
    shutil.copytree(kept, latest)  # as a copier does that knows no links
    assert run_backup(site.data, beside).backup.kind == "incr"
    assert latest.is_symlink() and kept.is_dir()
    shutil.rmtree(kept)
    shutil.rmtree(Path(beside.place, "pgbackrest", "backup", "pacs", latest.readlink()))
    found = {each.what: each for each in look_at(site.data, beside, site.keyring)}
    assert not found["database"].is_well and found["configuration"].is_well


def test_nothing_of_the_log_goes_to_a_repository_whose_mark_was_not_looked_at(site: Site, usb: Repository) -> None:
    allowed: set[str] = set()
    with open_instance(site.data) as instance:
        backup = DatabaseBackup(instance.settings, instance.database, instance.volumes, allowed.__contains__)
        name = site.end_segment()
        had = site.log("usb").read().last_segment
        for _ in range(5):
            backup.ship_log()
            backup.make_points()
        assert site.log("usb").read().last_segment == had and name in site.spool.names()
        allowed.add(usb.volume_id)
        backup.ship_log()
        site.wait(lambda: (site.log("usb").read().last_segment or "") >= name)


@pytest.mark.long
def test_a_backup_that_was_killed(site: Site, usb: Repository) -> None:
    known = site.labels("usb")
    site.execute("CREATE TABLE large AS SELECT md5(n::text) AS words FROM generate_series(1, 200000) n")
    words = [sys.executable, "-c", "import sys; from pathlib import Path; from pacs.backup.running import *;"
             f"run_backup(Path('{site.data}'), named(Path('{site.data}'), 'usb')[0], 'full')"]  # fmt: skip
    process = subprocess.Popen(words, start_new_session=True)
    half = Path(usb.place, "pgbackrest", "backup", "pacs")
    site.wait(lambda: any(not (path / "backup.manifest").exists() and path.name[0] == "2" for path in half.iterdir()))
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(site.data).encode() in path.read_bytes() and b"pgbackrest" in path.read_bytes()[:20]:
                os.kill(int(path.parent.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue
    process.kill()
    process.wait()
    assert site.labels("usb") == known, "half a backup is none"
    made = run_backup(site.data, usb, "full").backup
    assert site.labels("usb")[-1] == made.label
    site.execute("DROP TABLE large")
    assert site.restore("usb").notes()


def test_a_bucket(site: Site, usb: Repository, bucket: Bucket, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "endpoint", alternative_name="DNS:localhost")
    endpoint = FaultyEndpoint(
        bucket.server if "://" in bucket.server else bucket.endpoint.upstream, certificate=certificate
    )
    credentials = write_credentials(tmp_path / "far.toml", ACCESS_KEY, SECRET_KEY).read_bytes()
    url = endpoint.url.replace("127.0.0.1", "localhost")  # pgBackRest takes certificates of names only
    far = site.add(
        f"s{uuid.uuid4().hex[:8]}", bucket.location, options={"endpoint": url}, credentials=credentials,
        ca_certificate=certificate.certificate.read_bytes(),
    )  # fmt: skip
    try:
        done = run_backup(site.data, far)
        site.note("y: in the bucket's log")
        site.end_segment()
        site.ship(far.name)
        assert site.restore(far.name).notes()[-1] == "y: in the bucket's log"
        [snapshot] = Configuration(far, site.keyring, tmp_path).snapshots()
        assert snapshot.snapshot_id == done.configuration.snapshot_id
        assert {"pgbackrest", "restic"} <= {key.split("/")[1] for key in bucket.listing()}
    finally:
        site.execute("DELETE FROM note WHERE words LIKE 'y%'")
        site.forget(far.name)
        endpoint.stop()
