"""Volumes in buckets: what they keep, and what they say of endpoints that fail, lie, or are somebody else's."""

from __future__ import annotations

import hashlib
import logging
import secrets
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pacs.errors import (
    ForeignVolume,
    NotFound,
    PacsError,
    SettingsError,
    TryAgainLater,
    UsageError,
    VolumeFailed,
    VolumeFull,
    VolumeMissing,
)
from pacs.storage import s3_upload
from pacs.storage.kinds import ToPut
from pacs.storage.names import object_path
from pacs.storage.opening import Place
from pacs.storage.s3 import S3Volume
from pacs.storage.s3_place import make_at
from pacs.storage.volume import IDENTITY_FILE, identity_content, new_identity
from tests.fix_bucket import APPLIANCE_ID, Bucket, write_credentials
from tests.remote.faulty import an_error, another_body, cut_at, error_in_success, nothing_said, slow_down, stall_at
from tests.volume_contract import put_and_find, remove_and_miss

CONTENT = secrets.token_bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).digest()


def new_path(content: bytes = CONTENT) -> str:
    return object_path(1, datetime.now(UTC), "42", hashlib.sha256(content).digest())


@pytest.fixture
def volume(bucket: Bucket) -> Iterator[S3Volume]:
    make_at(bucket.location, bucket.options, bucket.credentials, "tier3", APPLIANCE_ID)
    opened = S3Volume(bucket.location, "tier3", bucket.options, bucket.credentials)
    yield opened
    opened.close()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Objects go in parts from 5 MiB on, the least that an endpoint takes."""
    monkeypatch.setattr(s3_upload, "PART_SIZE_BYTES", 5 << 20)
    return 5 << 20


# --- what it keeps -------------------------------------------------------------------------------------------------


def test_an_object_comes_back_as_it_was(volume: S3Volume, bucket: Bucket) -> None:
    path = new_path()
    put_and_find(volume, path, CONTENT)
    assert bucket.listing() == [f"archive/{path}", "archive/volume.json"]
    assert b"".join(volume.read(path, len(CONTENT))) == b""
    assert next(volume.walk()).modified_at > datetime.now(UTC) - timedelta(minutes=5)
    remove_and_miss(volume, path)


@pytest.mark.parametrize("size_bytes", [10 << 20, (10 << 20) + 1], ids=["two full parts", "and a byte"])
def test_a_large_object_goes_in_parts_and_appears_at_once(
    volume: S3Volume, bucket: Bucket, small_parts: int, size_bytes: int
) -> None:
    content = secrets.token_bytes(size_bytes)
    path = new_path(content)
    pieces = [content[at : at + 999_999] for at in range(0, size_bytes, 999_999)]
    assert volume.put(path, pieces, size_bytes) == hashlib.sha256(content).digest()
    assert volume.digest_on_disk(path) == hashlib.sha256(content).digest()
    parts = [where for method, where in bucket.endpoint.seen if "partNumber" in where]
    assert len(parts) == -(-size_bytes // small_parts)
    reader = volume.open(path)
    assert reader.size_bytes == size_bytes
    for offset in (0, 5, size_bytes - 3, 3 << 20, 0):
        buffer = memoryview(bytearray(70_000))
        size = reader.read_into(buffer, offset)
        assert bytes(buffer[:size]) == content[offset : offset + 70_000]
    reader.close()


def test_a_source_that_fails_leaves_nothing(volume: S3Volume, bucket: Bucket, small_parts: int) -> None:
    def broken() -> Iterator[bytes]:
        yield bytes(small_parts + 1)
        raise VolumeFailed("the source's disk")

    for chunks, size_bytes in ((broken(), 2 * small_parts), ([b"short"], 6), ([bytes(small_parts + 1)], 5)):
        with pytest.raises(VolumeFailed):
            volume.put(new_path(), chunks, size_bytes)
    assert bucket.listing() == ["archive/volume.json"]
    assert list(volume.walk()) == []  # no upload in parts is left either


def test_many_are_put_at_once_and_each_has_its_outcome(volume: S3Volume) -> None:
    contents = [secrets.token_bytes(1000) for _ in range(20)]
    files = [ToPut(new_path(content), [content], 1000) for content in contents]
    files.insert(7, ToPut(new_path(), [b"less than it said"], 1000))
    outcomes = volume.put_many(files)
    failed = outcomes.pop(7)
    assert isinstance(failed, VolumeFailed)
    assert outcomes == [hashlib.sha256(content).digest() for content in contents]
    assert {each.path for each in volume.walk()} == {file.path for file in files} - {files[7].path}


def test_a_path_is_used_once(volume: S3Volume) -> None:
    path = new_path()
    volume.put(path, [CONTENT], len(CONTENT))
    with pytest.raises(VolumeFailed, match="used once"):
        volume.put(path, [CONTENT[::-1]], len(CONTENT))
    assert volume.digest_on_disk(path) == SHA256


def test_a_stranger_goes_to_quarantine(volume: S3Volume, bucket: Bucket) -> None:
    bucket.put("objects/1/strange", b"nobody's")
    target = volume.quarantine("objects/1/strange")
    assert bucket.get(target) == b"nobody's"
    assert list(volume.walk()) == []


def test_small_notes_are_replaced_and_read_back(volume: S3Volume, bucket: Bucket) -> None:
    with pytest.raises(NotFound):
        volume.read_small("journal/2026-11.jsonl")
    for content in (b"one\n", b"one\ntwo\n"):
        volume.replace_small("journal/2026-11.jsonl", content)
        assert volume.read_small("journal/2026-11.jsonl") == content
    bucket.endpoint.fail("GET", "journal", another_body(b"one\n"))
    with pytest.raises(VolumeFailed, match="did not keep"):
        volume.replace_small("journal/2026-11.jsonl", b"three")


def test_a_listing_of_more_than_a_page(volume: S3Volume, bucket: Bucket) -> None:
    paths = {f"objects/1/2026/11/22/7/{number:04}" for number in range(30)}
    for path in paths:
        bucket.put(path, b"x")
    # A page is a thousand; pages of ten show the same in less time.
    events = volume._client.meta.events
    events.register("before-parameter-build.s3.ListObjectsV2", lambda params, **_: params.setdefault("MaxKeys", 10))
    assert {each.path for each in volume.walk()} == paths
    assert len([where for _, where in bucket.endpoint.seen if "list-type=2" in where and "objects" in where]) == 3


def test_an_upload_that_nobody_finished_is_listed_and_removed(volume: S3Volume, bucket: Bucket) -> None:
    key = f"archive/{new_path()}"
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)
    (left,) = volume.walk()
    assert left.path.startswith("incoming/objects/") and left.modified_at.tzinfo is not None
    volume.remove(left.path)
    assert list(volume.walk()) == []


# --- an endpoint that fails ----------------------------------------------------------------------------------------


def test_a_passing_failure_is_tried_again(volume: S3Volume, bucket: Bucket) -> None:
    path = new_path()
    bucket.endpoint.fail("PUT", path, slow_down, forward=False)
    volume.put(path, [CONTENT], len(CONTENT))
    for change in (slow_down, cut_at(1000), stall_at(200_000), an_error(500, "InternalError")):
        bucket.endpoint.fail("GET", path, change)
        assert volume.digest_on_disk(path) == SHA256
    bucket.endpoint.fail("GET", path, cut_at(50_000))
    assert bytes(_read_whole(volume, path)) == CONTENT


def _read_whole(volume: S3Volume, path: str) -> bytearray:
    file = volume.open(path)
    found = bytearray(file.size_bytes)
    assert file.read_into(memoryview(found), 0) == file.size_bytes
    return found


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (slow_down, TryAgainLater, "slow down"),
        (an_error(500, "InternalError"), VolumeFailed, "its own log"),
        (an_error(403, "AccessDenied"), VolumeMissing, "policy"),
        (an_error(403, "RequestTimeTooSkewed"), VolumeMissing, "clocks"),
        (an_error(507, "InsufficientStorage"), VolumeFull, "quota"),
        (an_error(404, "NoSuchBucket"), VolumeMissing, "no such bucket"),
        (error_in_success, VolumeFailed, "its own log"),
        (nothing_said, VolumeFailed, "without saying what it wrote"),
    ],
)
def test_a_put_that_is_refused_says_why_and_leaves_nothing(
    volume: S3Volume, bucket: Bucket, change: Callable[..., Any], error: type[PacsError], says: str
) -> None:
    path = new_path()
    if bucket.server == "swift":  # so that the put is one request
        volume._uploads._conditions = False
    bucket.endpoint.fail("PUT", path, change, times=9, forward=False)
    with pytest.raises(error, match=says):
        volume.put(path, [CONTENT], len(CONTENT))
    assert bucket.listing() == ["archive/volume.json"]


def test_an_answer_that_was_lost_does_not_lose_the_object(volume: S3Volume, bucket: Bucket) -> None:
    """The endpoint stored it and its answer did not come: the second try finds our own object there."""
    if bucket.server == "swift":
        pytest.skip("Swift knows no conditional put")
    path = new_path()
    bucket.endpoint.fail("PUT", path, an_error(500, "InternalError"))
    assert volume.put(path, [CONTENT], len(CONTENT)) == SHA256
    assert volume.digest_on_disk(path) == SHA256


def test_a_part_that_fails_takes_the_others_with_it(volume: S3Volume, bucket: Bucket, small_parts: int) -> None:
    content = bytes(3 * small_parts)
    for method, where in (("PUT", "partNumber=2"), ("POST", "uploadId=")):
        fault = bucket.endpoint.fail(method, where, an_error(500, "InternalError"), times=9, forward=False)
        with pytest.raises(VolumeFailed):
            volume.put(new_path(), [content], len(content))
        fault.times = 0
    assert bucket.listing() == ["archive/volume.json"] and list(volume.walk()) == []


@pytest.mark.parametrize("change", [cut_at(1000), stall_at(1000)], ids=["cut", "timed out"])
def test_an_endpoint_that_stops_half_way_for_good(volume: S3Volume, bucket: Bucket, change: Callable[..., Any]) -> None:
    path = new_path()
    volume.put(path, [CONTENT], len(CONTENT))
    hasty = S3Volume(bucket.location, "tier3", {**bucket.options, "read_timeout_s": 0.3}, bucket.credentials)
    bucket.endpoint.fail("GET", path, change, times=99)
    with pytest.raises(VolumeMissing, match="broke off"):  # which says nothing of the copy
        hasty.digest_on_disk(path)
    hasty.close()


def test_a_read_that_fails_is_not_the_copys_fault(volume: S3Volume, bucket: Bucket) -> None:
    """Whoever reads takes a copy that fails (VolumeFailed) out of service, and leaves a volume that is away alone."""
    path = new_path()
    volume.put(path, [CONTENT], len(CONTENT))
    for change in (slow_down, an_error(500, "InternalError"), an_error(403, "AccessDenied"), cut_at(9)):
        fault = bucket.endpoint.fail("GET", path, change, times=99)
        for read in (volume.open, volume.digest_on_disk, lambda one: volume.read_start(one, 200), volume.read_small):
            with pytest.raises(VolumeMissing):
                read(path)
        fault.times = 0
    fault = bucket.endpoint.fail("GET", "list-type=2", an_error(500, "InternalError"), times=9)
    with pytest.raises(VolumeMissing):
        list(volume.walk())
    fault.times = 0
    assert volume.digest_on_disk(path) == SHA256


def test_another_object_and_changed_bytes_are_found_by_their_digest(volume: S3Volume, bucket: Bucket) -> None:
    path = new_path()
    volume.put(path, [CONTENT], len(CONTENT))
    bucket.endpoint.fail("GET", path, another_body(bytes(len(CONTENT))))
    assert volume.digest_on_disk(path) != SHA256
    bucket.put(path, bytes(len(CONTENT)))
    assert volume.digest_on_disk(path) == hashlib.sha256(bytes(len(CONTENT))).digest()


def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed(volume: S3Volume, bucket: Bucket) -> None:
    path, content = new_path(), bytes(5 << 20)
    volume.put(path, [content], len(content))
    reader = volume.open(path)
    bucket.put(path, b"\1" * len(content))
    with pytest.raises(NotFound, match="replaced"):
        reader.read_into(memoryview(bytearray(100)), 4 << 20)


def test_an_endpoint_that_is_down(volume: S3Volume, bucket: Bucket) -> None:
    volume._present_until_s = 0
    bucket.endpoint.stop()
    for ask in (volume.require_present, lambda: volume.size_of("objects/1"), lambda: list(volume.walk())):
        with pytest.raises(VolumeMissing, match="does not answer"):
            ask()
    with pytest.raises(VolumeMissing, match="does not answer"):
        S3Volume(bucket.location, "tier3", bucket.options, bucket.credentials)


# --- somebody else's, or nobody's ----------------------------------------------------------------------------------


def test_wrong_credentials(volume: S3Volume, bucket: Bucket, tmp_path: Path) -> None:
    if bucket.server == "moto":
        pytest.skip("moto takes every signature; Swift does not")
    for key, secret in (("test:tester", "not-my-secret"), ("test:nobody", "testing"), ("other:tester", "testing2")):
        wrong = write_credentials(tmp_path / "others.toml", key, secret)
        with pytest.raises(VolumeMissing, match=r"refused the credentials.*others\.toml|no such bucket") as caught:
            S3Volume(bucket.location, "tier3", bucket.options, wrong)
        assert secret not in str(caught.value) and key not in str(caught.value)


def test_keys_that_were_changed_count_without_a_restart(volume: S3Volume, bucket: Bucket) -> None:
    old = bucket.credentials.read_text()
    bucket.credentials.write_text("access_key_id = 'new'\n")
    volume._present_until_s = 0
    with pytest.raises(SettingsError, match="lacks"):
        volume.require_present()
    bucket.credentials.write_text(old)
    volume._absent_until_s = 0
    volume.require_present()


def test_another_appliances_bucket_is_neither_written_nor_emptied(volume: S3Volume, bucket: Bucket) -> None:
    path = new_path()
    volume.put(path, [CONTENT], len(CONTENT))
    bucket.put(IDENTITY_FILE, identity_content(new_identity(("tier3",), str(uuid.uuid4()))))
    volume._present_until_s = 0  # as ten seconds later
    asked = len(bucket.endpoint.seen)
    for write in (
        lambda: volume.put(new_path(), [CONTENT], len(CONTENT)),
        lambda: volume.remove(path),
        lambda: volume.quarantine(path),
        lambda: volume.replace_small("journal/x", b"x"),
        volume.require_present,
    ):
        with pytest.raises(ForeignVolume, match="prefix of its own"):
            write()
    assert len(bucket.endpoint.seen) == asked + 1, "one asked, the others heard what it heard"
    assert bucket.listing() == [f"archive/{path}", "archive/volume.json"]


def test_a_bucket_that_was_emptied_or_removed(volume: S3Volume, bucket: Bucket) -> None:
    path = new_path()
    volume.put(path, [CONTENT], len(CONTENT))
    for key in bucket.listing():
        bucket.client.delete_object(Bucket=bucket.name, Key=key)
    for ask in (lambda: volume.open(path), lambda: volume.size_of(path), lambda: volume.digest_on_disk(path)):
        with pytest.raises(VolumeMissing, match="was it emptied"):  # the volume is missing, not one object
            ask()
    volume._present_until_s = 0
    with pytest.raises(VolumeMissing, match="was it emptied"):
        volume.put(new_path(), [CONTENT], len(CONTENT))
    assert bucket.listing() == []
    bucket.client.delete_bucket(Bucket=bucket.name)
    volume._absent_until_s = 0
    with pytest.raises(VolumeMissing, match="no such bucket|was it emptied"):
        volume.require_present()


def test_a_bucket_is_made_a_volume_once(volume: S3Volume, bucket: Bucket) -> None:
    place = Place("s3", bucket.location, bucket.options, bucket.credentials)
    assert place.identity() == volume.identity
    with pytest.raises(VolumeFailed, match="used once"):
        place.make("tier2", APPLIANCE_ID)
    with pytest.raises(UsageError, match="not empty"):
        Place("s3", f"s3://{bucket.name}", bucket.options, bucket.credentials).identity()
    with pytest.raises(VolumeMissing, match="for tier3, not for tier2"):
        S3Volume(bucket.location, "tier2", bucket.options, bucket.credentials)
    with pytest.raises(VolumeMissing, match=r"volume\.json is missing"):
        S3Volume(f"s3://{bucket.name}/elsewhere", "tier3", bucket.options, bucket.credentials)
    other = Place("s3", f"s3://{bucket.name}/other", bucket.options, bucket.credentials)
    assert other.identity() is None
    bucket.endpoint.fail("GET", "other/volume.json", another_body(bucket.get(IDENTITY_FILE)))
    with pytest.raises(VolumeFailed, match="another object"):
        other.make("tier2", APPLIANCE_ID)
    other.unmake()
    assert other.identity() is None


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_credentials_that_others_can_read_are_refused(bucket: Bucket) -> None:
    bucket.credentials.chmod(0o640)
    with pytest.raises(SettingsError, match="chmod 600"):
        S3Volume(bucket.location, "tier3", bucket.options, bucket.credentials)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("access_key_id = 'a'", "lacks"),
        ("access_key_id = 'a'\nsecret_access_key = 5", "lacks"),
        ("access_key_id = 'a'\nsecret_access_key = 'topsecret", "cannot be read"),
        ("access_key_id = 'a'\nsecret_access_key = 'topsecret'\nregion = 'x'", "region"),
        (None, "is missing"),
    ],
)
def test_credentials_that_are_off(bucket: Bucket, content: str | None, says: str) -> None:
    if content is None:
        bucket.credentials.unlink()
    else:
        bucket.credentials.write_text(content)
    with pytest.raises(SettingsError, match=says) as caught:
        S3Volume(bucket.location, "tier3", bucket.options, bucket.credentials)
    assert "topsecret" not in str(caught.value)


def test_secrets_are_in_no_log(volume: S3Volume, bucket: Bucket, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bucket.endpoint.fail("GET", "objects", an_error(403, "SignatureDoesNotMatch"))
    with pytest.raises(VolumeMissing):
        volume.open(new_path())
    assert "testing" not in caplog.text and "testing" not in repr(vars(volume))


def test_options_that_mean_nothing(bucket: Bucket) -> None:
    for options in ({"endpiont": "http://127.0.0.1"}, {"attempts": "3"}, {"attempts": True}):
        with pytest.raises(SettingsError, match="no option"):
            S3Volume(bucket.location, "tier3", options, bucket.credentials)
    with pytest.raises(SettingsError, match="ca_file, is missing"):
        S3Volume(bucket.location, "tier3", {**bucket.options, "ca_file": "/nowhere"}, bucket.credentials)
