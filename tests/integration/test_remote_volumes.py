"""Shares and buckets as volumes of an instance: added, holding copies, read from when the other copy is gone."""

# ruff: noqa: F811 (the fixture run)

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable
from pathlib import Path

from pacs.archive.store import Arrival
from pacs.cli.instance import Instance, open_instance
from pacs.index.volumes import volume_named
from pacs.storage.kinds import Volume
from pacs.storage.names import fresh_path
from pacs.storage.s3_place import make_at
from tests.certificates import make_certificate
from tests.fix_bucket import Bucket
from tests.fix_share import OPTIONS, Share
from tests.remote.faulty import FaultyEndpoint, an_error
from tests.serving import stored_bytes
from tests.synthetic import SyntheticObject, ct_study
from tests.unit.cli.conftest import Outcome, Run, run  # noqa: F401 (a fixture)


def stored(instance: Instance, seed: int) -> list[SyntheticObject]:
    objects = ct_study(seed, 3)
    for made in objects:
        arrival = Arrival(made.dataset, made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid)
        assert instance.store().store(arrival) == "stored"
    return objects


def copied_to(instance: Instance, name: str) -> Volume:
    """Every object gets a copy on a volume, and loses the one on tier 1."""
    source = instance.volumes.tier(1)[0]
    target = instance.volumes.get(volume_named(instance.database, name).volume_id)
    with instance.database.transaction() as connection:
        found = connection.execute(
            "SELECT object_key, path, size_bytes, sha256 FROM copy JOIN object USING (object_key) WHERE volume_id = %s",
            (source.volume_id,),
        ).fetchall()
        for each in found:
            path = fresh_path(each["path"])
            assert target.put(path, source.read(each["path"]), each["size_bytes"]) == bytes(each["sha256"])
            assert target.digest_on_disk(path) == bytes(each["sha256"])
            connection.execute(
                "INSERT INTO copy (tenant_id, object_key, volume_id, path) VALUES (1, %s, %s, %s)",
                (each["object_key"], target.volume_id, path),
            )
            connection.execute(
                "DELETE FROM copy WHERE object_key = %s AND volume_id = %s", (each["object_key"], source.volume_id)
            )
            source.remove(each["path"])
    assert found
    return target


def require_back(instance: Instance, objects: list[SyntheticObject]) -> None:
    retrieve = instance.retrieve()
    wanted = {w.sop_instance_uid: w for w in retrieve.wanted({"StudyInstanceUID": [objects[0].study_instance_uid]})}
    for made in objects:
        assert stored_bytes(retrieve, wanted[made.sop_instance_uid]) == made.dataset


def add_bucket(run: Run, data: Path, bucket: Bucket, *more: str, name: str = "cloud") -> Outcome:
    return run(
        "--data", data, "volume", "add", name, bucket.location, "--tier", "3", "--endpoint", bucket.endpoint.url,
        "--credentials-file", bucket.credentials, "--option", "read_timeout_s=2", "--option", "attempts=2", *more,
    )  # fmt: skip


def test_a_bucket_is_added_and_holds_a_study(new_instance: Callable[[], Path], bucket: Bucket, run: Run) -> None:
    data = new_instance()
    added = add_bucket(run, data, bucket)
    assert added.code == 0 and "cloud is a volume of tier 3 now" in added.out, added.err
    kept = data / "config/volumes/cloud.toml"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600 and kept.read_text() == bucket.credentials.read_text()
    assert "testing" not in (data / "journal").glob("*.jsonl").__next__().read_text()
    bucket.credentials.unlink()
    with open_instance(data) as instance:
        objects = stored(instance, 1)
        cloud = copied_to(instance, "cloud")
        assert len([each for each in bucket.listing() if each.endswith(".dcm")]) == len(objects)
        require_back(instance, objects)
        with instance.database.transaction() as connection:
            assert "testing" not in str(connection.execute("SELECT * FROM volume").fetchall())
        assert instance.volumes.get(cloud.volume_id) is cloud
    listed = json.loads(run("--data", data, "volume", "list", "--json").out)
    assert [(each["name"], each["kind"], each["problem"]) for each in listed][2:] == [("cloud", "s3", "")]
    assert run("--data", data, "volume", "verify", "cloud").code == 0


def test_an_endpoint_that_is_down_keeps_nothing_else_from_working(
    new_instance: Callable[[], Path],
    bucket: Bucket,
    run: Run,
) -> None:
    data = new_instance()
    assert add_bucket(run, data, bucket).code == 0
    bucket.endpoint.stop()
    with open_instance(data) as instance:
        objects = stored(instance, 2)
        require_back(instance, objects)
        (reason,) = instance.volumes.absent.values()
        assert "does not answer" in str(reason)
    assert "does not answer" in run("--data", data, "volume", "list").out


def test_a_bucket_that_cannot_be_one_is_refused_and_left_as_it_was(
    new_instance: Callable[[], Path],
    bucket: Bucket,
    run: Run,
    tmp_path: Path,
) -> None:
    data = new_instance()
    refused = add_bucket(run, data, bucket, "--tier", "1")
    assert refused.code == 2 and "receives" in refused.err
    bucket.endpoint.fail("PUT", "incoming", an_error(403, "AccessDenied"), times=9, forward=False)
    refused = add_bucket(run, data, bucket)
    assert refused.code == 5 and "refused the credentials" in refused.err
    bucket.endpoint.faults.clear()
    bucket.put("letters/1", b"x")
    refused = add_bucket(run, data, bucket)
    assert refused.code == 2 and "letters/1" in refused.err
    refused = add_bucket(run, data, bucket, "--option", "endpiont=x")
    assert refused.code == 3 and "endpiont" in refused.err
    assert bucket.listing() == ["archive/letters/1"] and list((data / "config/volumes").iterdir()) == []
    bucket.client.delete_object(Bucket=bucket.name, Key="archive/letters/1")
    assert add_bucket(run, data, bucket).code == 0
    refused = add_bucket(run, data, bucket, name="again")
    assert refused.code == 2 and "one inside the other" in refused.err
    words = ("--data", data, "volume", "add", "bare", f"s3://{bucket.name}", "--tier", "3")
    assert "--credentials-file" in run(*words).err
    assert sorted(path.name for path in (data / "config/volumes").iterdir()) == ["cloud.toml"]


def test_a_bucket_of_another_appliance_is_refused(
    new_instance: Callable[[], Path],
    bucket: Bucket,
    run: Run,
) -> None:
    data = new_instance()
    make_at(bucket.location, bucket.options, bucket.credentials, "tier3", "00000000-0000-0000-0000-0000000000ff")
    before = bucket.listing()
    refused = add_bucket(run, data, bucket)
    assert refused.code == 5 and "Nothing was touched" in refused.err
    assert bucket.listing() == before


def test_a_share_is_added_and_one_that_hangs_holds_up_nobody(
    new_instance: Callable[[], Path],
    share: Share,
    run: Run,
    tmp_path: Path,
) -> None:
    (share.server / "volume.json").unlink()
    data = new_instance()
    words = ("--data", data, "volume", "add", "nas", share.folder, "--tier", "2")
    assert "FUSE" in run(*words).err
    options = [word for name, value in OPTIONS.items() for word in ("--option", f"{name}={json.dumps(value)}")]
    added = run(*words, *options)
    assert added.code == 0, added.err
    with open_instance(data) as instance:
        objects = stored(instance, 3)
        copied_to(instance, "nas")
        require_back(instance, objects)
        share.hang()
        began = time.monotonic()
        instance.volumes.refresh()  # one time limit, and it is known to be missing
        (reason,) = instance.volumes.absent.values()
        assert "does not answer" in str(reason)
        more = stored(instance, 4)
        require_back(instance, more)
        assert time.monotonic() - began < 20 * OPTIONS["timeout_s"]
        share.wake()
        ends = time.monotonic() + 30
        while instance.volumes.absent:
            assert time.monotonic() < ends
            time.sleep(0.1)
            instance.volumes.refresh()
        require_back(instance, objects)


def test_an_endpoint_with_a_certificate_of_its_own(
    new_instance: Callable[[], Path],
    bucket: Bucket,
    run: Run,
    tmp_path: Path,
) -> None:
    certificate = make_certificate(tmp_path, "endpoint", alternative_name="IP:127.0.0.1")
    data = new_instance()
    endpoint = FaultyEndpoint(bucket.endpoint.upstream, certificate=certificate)
    try:
        refused = add_bucket(run, data, bucket, "--endpoint", endpoint.url)
        assert refused.code == 5 and "certificate is not trusted" in refused.err
        added = add_bucket(run, data, bucket, "--endpoint", endpoint.url, "--ca-file", str(certificate.certificate))
        assert added.code == 0, added.err
        certificate.certificate.unlink()  # a copy was kept
        with open_instance(data) as instance:
            objects = stored(instance, 5)
            copied_to(instance, "cloud")
            require_back(instance, objects)
    finally:
        endpoint.stop()
