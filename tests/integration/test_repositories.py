"""Repositories: what is shipped there is found by its digest, given back, repaired; and what is refused."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from pacs import clock
from pacs.archive.reconcile import reconcile
from pacs.archive.repair import Repair
from pacs.archive.scrub import Scrub
from pacs.archive.volume_places import Given
from pacs.backup.key_changes import is_sealed_anew, reseal, rotated, verify
from pacs.backup.keys import master_key, sealed_in, unseal
from pacs.backup.repositories import open_volume, repositories, repository_named
from pacs.backup.shipping import Shipper, lag_of
from pacs.cli.instance import Instance
from pacs.errors import ForeignVolume, NotFound, PacsError, UsageError, VolumeError, WrongKey
from pacs.index import shipping as shipping_rows
from pacs.index import volumes as volume_rows
from pacs.index.tiers import note_absent
from pacs.model.schedule import is_open
from pacs.storage import crypt
from pacs.storage.keyring import Keyring
from pacs.storage.names import repository_path
from pacs.storage.volume import read_identity
from tests.fix_bucket import Bucket
from tests.fix_share import Share
from tests.mounted import file_system
from tests.planting import BucketSite, LocalSite, copies
from tests.repository import PLACES, InRepository, add_bucket, add_folder, changes, sealed, ship
from tests.sftp_server import SftpServer
from tests.synthetic import ct_study
from tests.tiers import add_volume, good_by_tier, recall, store
from tests.volume_contract import put_and_find, remove_and_miss

STUDY = ct_study(1, 7)


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest, instance: Instance) -> InRepository:
    """A repository of each kind."""
    return PLACES[request.param](instance, request)


@pytest.fixture
def folder(instance: Instance, tmp_path: Path) -> InRepository:
    """A repository in a folder."""
    return add_folder(instance, tmp_path / "repository")


def scrub(instance: Instance) -> tuple[int, int]:
    found = Scrub(instance.database, instance.volumes, timedelta(days=90)).run(everything=True)
    assert not found.failed
    return found.bad, found.missing


def in_repository(instance: Instance, place: InRepository) -> list[dict[str, object]]:
    return [dict(row) for row in copies(instance) if row["volume_id"] == place.repository.volume_id]


# --- a sealed volume -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_bytes", [200_000, 2 * crypt.BLOCK_BYTES, 3 * crypt.BLOCK_BYTES + 1])
def test_a_sealed_volume_does_what_every_volume_does(instance: Instance, place: InRepository, size_bytes: int) -> None:
    volume, content = sealed(instance, place.repository), random.Random(size_bytes).randbytes(size_bytes)
    path = "objects/1/2026/11/22/study/" + "ab" * 32 + "-0123456789ab.dcm"
    put_and_find(volume, path, content)
    assert content[100:200] not in place.site.get(path)
    file = volume.open(path)
    for offset, size in (
        (0, 10),
        (crypt.BLOCK_BYTES - 3, 7),
        (len(content) - 5, 50),
        (1, len(content)),
        (len(content), 1),
    ):
        buffer = bytearray(size)
        count = file.read_into(memoryview(buffer), offset)
        assert buffer[:count] == content[offset : offset + size]
    file.close()
    remove_and_miss(volume, path)


def test_a_flipped_bit_anywhere_is_found(instance: Instance, folder: InRepository) -> None:
    volume, content = sealed(instance, folder.repository), random.Random(2).randbytes(crypt.BLOCK_BYTES + 100)
    volume.put("objects/a", [content], len(content))
    good = folder.site.get("objects/a")
    edges = (0, 7, 8, 31, 32, 47, 48, crypt.HEADER_BYTES + crypt.SEALED_BLOCK_BYTES, len(good) - 1)
    for at in {*edges, *random.Random(3).sample(range(len(good)), 50)}:
        folder.site.put("objects/a", good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(crypt.Unreadable):
            volume.digest_on_disk("objects/a")
    for length in (0, 31, 32, 40, crypt.HEADER_BYTES + crypt.SEALED_BLOCK_BYTES, len(good) - 1):
        folder.site.put("objects/a", good[:length])
        try:
            assert b"".join(volume.read("objects/a")) != content
            assert volume.size_of("objects/a") != len(content)
        except crypt.Unreadable:
            pass


# --- shipping ------------------------------------------------------------------------------------------------------


def test_what_arrives_is_shipped_once_and_found_by_its_digest(instance: Instance, place: InRepository) -> None:
    store(instance, STUDY)
    behind = lag_of(instance.database, place.repository.volume_id)
    assert (behind.objects, behind.is_counted) == (7, True) and behind.oldest_s is not None
    done = ship(instance, place.repository)
    assert (done.objects, done.failed, done.error) == (7, 0, "")
    assert lag_of(instance.database, place.repository.volume_id).objects == 0
    volume = sealed(instance, place.repository)
    for row in in_repository(instance, place):
        sha256 = bytes(row["sha256"])  # type: ignore[arg-type]
        assert row["path"] == repository_path(sha256) and volume.digest_on_disk(repository_path(sha256)) == sha256
    assert ship(instance, place.repository).objects == 0


def test_what_a_kill_left_in_a_repository_counts_if_it_is_whole(instance: Instance, place: InRepository) -> None:
    store(instance, STUDY)
    ship(instance, place.repository)
    rows = in_repository(instance, place)
    with instance.database.transaction() as connection:
        volume_rows.forget_copies(connection, place.repository.volume_id)
        connection.execute("UPDATE shipping SET position = 0")
    damaged = str(rows[0]["path"])
    place.site.put(damaged, place.site.get(damaged)[:-1] + b"\0")
    while ship(instance, place.repository).error:
        pass
    assert len(in_repository(instance, place)) == 7 and scrub(instance) == (0, 0)


def test_a_slow_transaction_is_not_passed_by(instance: Instance, folder: InRepository) -> None:
    """An object with a lower key comes to light after others were shipped."""
    store(instance, STUDY[:2])
    ship(instance, folder.repository)
    with instance.database.transaction() as connection:
        row = shipping_rows.state(connection, folder.repository.volume_id)
        assert row is not None and row["position"] == 0  # ten minutes behind what arrives
        connection.execute("UPDATE object SET arrived_at = now() - interval '11 minutes'")
    ship(instance, folder.repository)
    with instance.database.transaction() as connection:
        row = shipping_rows.state(connection, folder.repository.volume_id)
        assert row is not None and row["position"] == max(copy["object_key"] for copy in copies(instance))


def test_a_repository_that_is_away_catches_up(instance: Instance, folder: InRepository, tmp_path: Path) -> None:
    store(instance, STUDY[:3])
    (tmp_path / "repository").rename(tmp_path / "unplugged")
    assert "Is its disk attached" in ship(instance, folder.repository).error
    (tmp_path / "repository").mkdir()  # the empty mount point
    assert ship(instance, folder.repository).error
    assert list((tmp_path / "repository").iterdir()) == []
    store(instance, STUDY[3:])
    behind = lag_of(instance.database, folder.repository.volume_id)
    assert behind.objects == 7 and behind.last_error
    (tmp_path / "repository").rmdir()
    (tmp_path / "unplugged").rename(tmp_path / "repository")
    instance.volumes.refresh()
    assert ship(instance, folder.repository).objects == 7


def test_what_is_on_a_volume_that_is_away_holds_nothing_else_up(
    instance: Instance, folder: InRepository, tmp_path: Path
) -> None:
    store(instance, STUDY[:3])
    tier1 = Path(instance.volumes.tier(1)[0].location)
    second = add_volume(instance, 1, "second")
    tier1.rename(tmp_path / "unplugged")
    instance.volumes.refresh()
    note_absent(instance.database, instance.volumes.absent.keys())
    store(instance, STUDY[3:])
    with instance.database.transaction() as connection:
        connection.execute("UPDATE object SET arrived_at = now() - interval '11 minutes'")
    assert (ship(instance, folder.repository).objects, second in instance.volumes.by_id) == (4, True)
    (tmp_path / "unplugged").rename(tier1)
    instance.volumes.refresh()
    note_absent(instance.database, instance.volumes.absent.keys())
    assert ship(instance, folder.repository).objects == 3


def test_a_window_that_is_closed_keeps_a_repository_behind(instance: Instance, tmp_path: Path) -> None:
    closed = add_folder(instance, tmp_path / "repository", windows=("mon 00:00-00:01",))
    store(instance, STUDY[:1])
    if is_open(closed.repository.windows, clock.now().astimezone()):
        pytest.skip("it is that minute of the week")
    assert ship(instance, closed.repository).objects == 0
    changes(instance).change("far", lambda before: type(before)(**{**before.__dict__, "windows": ()}))
    assert ship(instance, repository_named(instance.settings.data, "far")).objects == 1


class Waits(threading.Event):
    """An event that notes for how long it was waited for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return False


def test_a_large_object_keeps_to_the_bandwidth_piece_by_piece(instance: Instance, tmp_path: Path) -> None:
    slow = add_folder(instance, tmp_path / "repository", bandwidth_bytes_per_s=100_000)
    store(instance, ct_study(3, 1, 2048, 2048))  # 8 MB
    waits = Waits()
    shipper = Shipper(instance.database, instance.volumes, waits)
    try:
        assert shipper.run(slow.repository).objects == 1
    finally:
        shipper.close()
    owed = [each for each in waits.waits if each > 0]
    # A little more after each piece, as none was waited for.
    assert len(owed) >= 7 and owed[0] < 12 and max(owed) > 40


# --- given back ----------------------------------------------------------------------------------------------------


def test_what_is_only_in_a_repository_is_given_and_comes_back(instance: Instance, place: InRepository) -> None:
    store(instance, STUDY)
    ship(instance, place.repository)
    with instance.database.transaction() as connection:  # as after a restore
        connection.execute("DELETE FROM copy WHERE volume_id <> %s", (place.repository.volume_id,))
        connection.execute("UPDATE volume SET is_source = true WHERE tier = 4")
    retrieve = instance.retrieve()
    wanted = retrieve.wanted({"StudyInstanceUID": [STUDY[0].study_instance_uid]})
    for made, each in zip(STUDY, wanted, strict=True):
        opened = retrieve.open(each)
        assert b"".join(bytes(piece) for piece in opened.pieces()) == made.dataset
        opened.close()
    assert recall(instance) == 1
    assert good_by_tier(instance) == {2: 7, 4: 7} and scrub(instance) == (0, 0)
    assert all(row["path"].startswith("objects/1/") for row in copies(instance, instance.volumes.tier(2)[0]))


def test_a_damaged_copy_is_repaired_from_the_repository_and_the_other_way_round(
    instance: Instance, place: InRepository
) -> None:
    store(instance, STUDY)
    ship(instance, place.repository)
    tier1 = instance.volumes.tier(1)[0]
    own = LocalSite(tier1, Path(tier1.location))
    ours, theirs = copies(instance, tier1), in_repository(instance, place)
    own.put(ours[0]["path"], own.get(ours[0]["path"])[:-1] + b"x")
    own.delete(ours[1]["path"])
    place.site.put(str(theirs[2]["path"]), place.site.get(str(theirs[2]["path"]))[:-1] + b"x")
    place.site.delete(str(theirs[3]["path"]))
    assert scrub(instance) == (2, 2)
    done = Repair(instance.database, instance.volumes.by_id).run(at_once=True)
    assert (done.repaired, done.waiting) == (4, 0)
    assert scrub(instance) == (0, 0) and good_by_tier(instance) == {1: 7, 4: 7}


def test_a_bad_object_in_a_repository_is_left_by_a_retrieve(instance: Instance, place: InRepository) -> None:
    store(instance, STUDY[:1])
    ship(instance, place.repository)
    with instance.database.transaction() as connection:
        connection.execute("DELETE FROM copy WHERE volume_id <> %s", (place.repository.volume_id,))
    path = str(in_repository(instance, place)[0]["path"])
    content = place.site.get(path)
    place.site.put(path, content[:60] + bytes([content[60] ^ 1]) + content[61:])
    retrieve = instance.retrieve()
    (wanted,) = retrieve.wanted({"StudyInstanceUID": [STUDY[0].study_instance_uid]})
    with pytest.raises(NotFound):
        retrieve.open(wanted)
    assert copies(instance)[0]["state"] == "bad"


def test_reconciliation_takes_what_the_index_does_not_know(instance: Instance, folder: InRepository) -> None:
    """As after a restore to a point before some objects came: they are in the repository, and indexed again."""
    store(instance, STUDY)
    ship(instance, folder.repository)
    with instance.database.transaction() as connection:
        connection.execute("DELETE FROM copy WHERE object_key IN (SELECT object_key FROM object ORDER BY 1 LIMIT 3)")
        connection.execute("DELETE FROM object WHERE object_key NOT IN (SELECT object_key FROM copy)")
    found = reconcile(instance.database, [sealed(instance, folder.repository)], 0)
    assert (found.indexed, found.quarantined, found.missing) == (3, 0, 0)
    assert good_by_tier(instance)[4] == 7


def test_a_copy_in_a_repository_lets_none_leave(instance: Instance, folder: InRepository) -> None:
    """Its copies do not count where it is asked whether a volume's may go."""
    store(instance, STUDY)
    ship(instance, folder.repository)
    tier1 = instance.volumes.tier(1)[0]
    with instance.database.transaction() as connection:
        assert volume_rows.holdings(connection, tier1.volume_id).only_here == 7
        assert volume_rows.holdings(connection, folder.repository.volume_id).only_here == 0
        connection.execute("DELETE FROM copy WHERE volume_id = %s", (tier1.volume_id,))
    with pytest.raises(UsageError, match="no good copy on the archive's own"):
        changes(instance).remove("far")


# --- object lock ---------------------------------------------------------------------------------------------------


def test_a_stolen_appliance_cannot_erase_a_bucket_with_object_lock(
    instance: Instance, request: pytest.FixtureRequest
) -> None:
    place = add_bucket(instance, request, locked_days=30)
    assert isinstance(place.site, BucketSite)
    client, bucket = place.site.client, place.site.bucket
    store(instance, STUDY[:2])
    ship(instance, place.repository)
    (row, other) = in_repository(instance, place)
    path = str(row["path"])
    content, version = place.site.get(path), client.head_object(Bucket=bucket, Key=path)
    left = version["ObjectLockRetainUntilDate"] - clock.now()
    assert left > timedelta(days=179), "renewed when it was read back"
    place.site.delete(path)
    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.delete_object(Bucket=bucket, Key=path, VersionId=version["VersionId"])
    place.site.put(str(other["path"]), b"ransom")
    assert scrub(instance) == (1, 1)
    kept = client.get_object(Bucket=bucket, Key=path, VersionId=version["VersionId"])["Body"].read()
    assert kept == content


def test_a_bucket_that_was_to_have_a_lock_and_has_none_is_refused(instance: Instance, bucket: Bucket) -> None:
    given = Given({**bucket.options, "retention_days": 180}, bucket.credentials.read_bytes())
    with pytest.raises(VolumeError, match="no object lock"):
        changes(instance).add("far", bucket.location, given)
    assert bucket.listing() == []


# --- an SFTP server ------------------------------------------------------------------------------------------------


def test_an_sftp_server_that_goes_away_and_comes_back(
    instance: Instance, sftp_server: SftpServer, tmp_path: Path
) -> None:
    place = changes(instance).add("far", sftp_server.location(tmp_path / "there"), Given({}, sftp_server.login))
    assert "SHA256:" in place.notes[0]
    store(instance, STUDY[:3])
    assert ship(instance, place.repository).objects == 3
    store(instance, STUDY[3:])
    sftp_server.stop()
    assert "127.0.0.1" in ship(instance, place.repository).error
    sftp_server.start()
    instance.volumes.refresh()
    assert ship(instance, place.repository).objects == 4 and scrub(instance) == (0, 0)
    room = sealed(instance, place.repository).room()
    assert room.free_bytes is not None and room.free_bytes > 0


def test_an_sftp_server_with_another_host_key_is_told_nothing(
    instance: Instance, sftp_server: SftpServer, tmp_path: Path
) -> None:
    place = changes(instance).add("far", sftp_server.location(tmp_path / "there"), Given({}, sftp_server.login))
    sftp_server.stop()
    (sftp_server.root / "host").unlink()
    sftp_server.start()
    store(instance, STUDY[:1])
    instance.volumes.refresh()
    assert "another host key" in ship(instance, place.repository).error


def test_places_on_an_sftp_server_that_cannot_be_repositories(
    instance: Instance, sftp_server: SftpServer, tmp_path: Path
) -> None:
    there, login = tmp_path / "there", sftp_server.login
    there.mkdir()
    (there / "holiday.jpg").write_bytes(b"x")
    for location, credentials, words in (
        (sftp_server.location(there), login, "not empty: it holds holiday.jpg"),
        (sftp_server.location(tmp_path / "no" / "such"), login, "missing"),
        (sftp_server.location(tmp_path / "new"), None, "credentials-file"),
        (sftp_server.location(tmp_path / "new"), b'password = "x"', "refuses the login"),
        ("sftp://127.0.0.1/x", login, "Write it as sftp://user@host"),
    ):
        with pytest.raises(PacsError, match=words):
            changes(instance).add("far", location, Given({}, credentials))
    assert repositories(instance.settings.data) == [] and [each.name for each in there.iterdir()] == ["holiday.jpg"]


# --- keys ----------------------------------------------------------------------------------------------------------


def test_a_new_sheet_opens_the_repository_and_the_old_one_does_not(instance: Instance, folder: InRepository) -> None:
    data, volume = instance.settings.data, sealed(instance, folder.repository)
    old = master_key(data)
    assert unseal(sealed_in(volume), old) == Keyring.open(data)
    assert [each.is_well for each in verify(data, instance.volumes, old)] == [True]
    new = rotated(data)
    assert new != old and all(each.is_well for each in reseal(data, instance.volumes))
    assert unseal(sealed_in(volume), new) == Keyring.open(data)
    with pytest.raises(WrongKey, match="nothing was touched"):
        unseal(sealed_in(volume), old)
    assert not is_sealed_anew(data, volume)


def test_a_repository_that_was_away_is_sealed_anew_when_it_is_back(instance: Instance, folder: InRepository) -> None:
    data, volume = instance.settings.data, sealed(instance, folder.repository)
    new = rotated(data)
    assert is_sealed_anew(data, volume) and unseal(sealed_in(volume), new) == Keyring.open(data)


def test_another_keyring_opens_nothing(instance: Instance, folder: InRepository) -> None:
    with pytest.raises(WrongKey, match="other keys"):
        open_volume(folder.repository, Keyring.make())


def test_two_appliances_on_one_repository_are_refused(instance: Instance, folder: InRepository, tmp_path: Path) -> None:
    root = tmp_path / "repository"
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(ForeignVolume, match="Nothing was written"):
        open_volume(folder.repository, Keyring.open(instance.settings.data), frozenset({"another"}))
    changes(instance).remove("far")
    identity = instance.settings.data / "volume.json"
    ours = read_identity(instance.settings.data).appliance_id
    identity.write_text(identity.read_text().replace(ours, "00000000-0000-0000-0000-000000000001"))
    with pytest.raises(ForeignVolume, match="Nothing was touched"):
        changes(instance).add("far", str(root), Given(on_system_disk=True))
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert repositories(instance.settings.data) == []


def test_a_repository_is_taken_up_again(instance: Instance, folder: InRepository, tmp_path: Path) -> None:
    store(instance, STUDY)
    ship(instance, folder.repository)
    changes(instance).remove("far")
    assert folder.repository.volume_id not in instance.volumes.by_id and good_by_tier(instance) == {1: 7}
    again = add_folder(instance, tmp_path / "repository", name="again")
    assert again.repository.volume_id == folder.repository.volume_id
    gone, damaged = again.site.paths("objects")[:2]
    again.site.delete(gone)
    again.site.put(damaged, again.site.get(damaged)[:-1])
    done = ship(instance, again.repository)
    assert (done.found, done.objects) == (5, 2), "what is there is not sent again"
    assert good_by_tier(instance) == {1: 7, 4: 7} and scrub(instance) == (0, 0)


def test_a_repository_has_its_row_again_in_another_index(instance: Instance, folder: InRepository) -> None:
    with instance.database.transaction() as connection:
        connection.execute("DELETE FROM volume WHERE tier = 4")
    assert changes(instance).register() == 1
    assert changes(instance).register() == 0
    assert folder.repository.volume_id in instance.volumes.by_id


# --- without us ----------------------------------------------------------------------------------------------------


def test_rclone_reads_an_object_with_what_the_sheet_unlocks(
    instance: Instance, folder: InRepository, tmp_path: Path
) -> None:
    if shutil.which("rclone") is None:
        pytest.skip("Debian's rclone is not installed: requirements/debian-test.txt")
    store(instance, STUDY[:1])
    ship(instance, folder.repository)
    sheet_key = master_key(instance.settings.data).text
    ring = Keyring.of(_rclone_cat(tmp_path / "repository", "keyring.json", sheet_key))
    assert ring == Keyring.open(instance.settings.data)
    (row,) = in_repository(instance, folder)
    name = str(row["path"]).removeprefix("objects/").removesuffix(".bin")
    content = _rclone_cat(tmp_path / "repository" / "objects", name, ring.objects_password, ring.objects_password2)
    assert content.endswith(STUDY[0].dataset) and content[128:132] == b"DICM"


def _rclone_cat(folder: Path, name: str, *passwords: str) -> bytes:
    def obscured(password: str) -> str:
        return subprocess.run(
            ["rclone", "obscure", password], capture_output=True, text=True, check=True
        ).stdout.strip()

    words = {"TYPE": "crypt", "REMOTE": str(folder), "FILENAME_ENCRYPTION": "off", "DIRECTORY_NAME_ENCRYPTION": "false"}
    words |= dict(zip(("PASSWORD", "PASSWORD2"), map(obscured, passwords), strict=False))
    environment = {f"RCLONE_CONFIG_SEALED_{key}": value for key, value in words.items()}
    return subprocess.run(
        ["rclone", "--config", os.devnull, "cat", f"sealed:{name}"],
        capture_output=True, check=True, env={**os.environ, **environment},
    ).stdout  # fmt: skip


# --- full, read-only, on a share -----------------------------------------------------------------------------------


def test_a_repository_that_is_full_or_read_only_catches_up(instance: Instance, tmp_path: Path) -> None:
    with file_system(tmp_path / "usb", size_mib=160) as disk:
        place = changes(instance).add("usb", str(disk.root), Given(on_system_disk=True))
        store(instance, STUDY[:3])
        filler = disk.root / "incoming" / "filler.part"
        with filler.open("wb") as file:
            os.posix_fallocate(
                file.fileno(), 0, (sealed(instance, place.repository).room().free_bytes or 0) - (8 << 20)
            )
        assert "No room left" in ship(instance, place.repository).error
        filler.unlink()
        disk.remount("ro")
        assert "read-only" in ship(instance, place.repository).error
        store(instance, STUDY[3:])
        disk.remount("rw")
        assert ship(instance, place.repository).objects == 7
        with instance.database.transaction() as connection:
            row = shipping_rows.state(connection, place.repository.volume_id)
            assert row is not None and row["last_error"] == ""
        changes(instance).remove("usb")


def test_a_repository_on_a_share(instance: Instance, share: Share) -> None:
    (share.server / "volume.json").unlink()
    for left in share.server.iterdir():
        left.rmdir()
    options = {"any_file_system": True, "timeout_s": 60}
    place = changes(instance).add("nas", str(share.folder), Given(options))
    assert place.repository.kind == "smb"
    store(instance, STUDY)
    assert ship(instance, place.repository).objects == 7 and scrub(instance) == (0, 0)
    files = sorted((share.server / "objects").rglob("*.bin"))
    content = files[0].read_bytes()
    files[0].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert scrub(instance) == (1, 0)
    assert Repair(instance.database, instance.volumes.by_id).run(at_once=True).repaired == 1
    assert scrub(instance) == (0, 0)
