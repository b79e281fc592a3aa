"""Damage on volumes of every kind, planted behind the archive's back, and what is to be seen of it afterwards.

A `Site` is the far side of a volume: what an administrator with too many rights, or a dying disk, can do there. To
have all of it tested on another kind of volume, add a function to `SITES` that makes one in tier 2 or 3.
"""

from __future__ import annotations

import json
import os
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from pacs.archive.known_volumes import secrets_of
from pacs.archive.store import Arrival
from pacs.cli.instance import Instance
from pacs.index import volumes as volume_rows
from pacs.index.database import Row
from pacs.storage.kinds import Kind, Volume
from pacs.storage.names import fresh_path
from pacs.storage.opening import Place
from tests.synthetic import SyntheticObject, ct_study


class Site(Protocol):
    """The far side of a volume."""

    volume: Volume
    #: Whether it knows folders, links and pipes.
    is_file_system: bool

    def get(self, path: str) -> bytes:
        """What is there."""
        ...

    def put(self, path: str, content: bytes) -> None:
        """Write over what is there, or anew."""
        ...

    def delete(self, path: str) -> None:
        """Take it away."""
        ...

    def paths(self, top: str) -> list[str]:
        """Every path below a folder, sorted."""
        ...


@dataclass
class LocalSite:
    """A folder of this machine."""

    volume: Volume
    root: Path
    is_file_system: bool = True

    def get(self, path: str) -> bytes:
        """What is there."""
        return (self.root / path).read_bytes()

    def put(self, path: str, content: bytes) -> None:
        """Write over what is there, or anew."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(content)

    def delete(self, path: str) -> None:
        """Take it away."""
        (self.root / path).unlink()

    def paths(self, top: str) -> list[str]:
        """Every path below a folder, sorted."""
        found = [path for path in (self.root / top).rglob("*") if path.is_symlink() or not path.is_dir()]
        return sorted(str(path.relative_to(self.root)) for path in found)


def local_site(instance: Instance, _request: pytest.FixtureRequest) -> Site:
    """The second tier of an instance as the tests have it."""
    volume = instance.volumes.tier(2)[0]
    return LocalSite(volume, Path(volume.location))


def share_site(instance: Instance, request: pytest.FixtureRequest) -> Site:
    """A share in tier 3; what is planted is planted on its server."""
    share = request.getfixturevalue("share")
    about = share.server / "volume.json"
    identity = json.loads(about.read_text())
    identity["appliance_id"] = instance.volumes.tier(1)[0].identity.appliance_id
    about.write_text(json.dumps(identity))
    options = {"any_file_system": True, "timeout_s": 60}
    return LocalSite(_known(instance, identity["volume_id"], str(share.folder), "smb", options), share.server)


def _known(instance: Instance, volume_id: str, location: str, kind: Kind, options: dict[str, object]) -> Volume:
    known = volume_rows.KnownVolume(volume_id, "far", 3, location, kind, options)
    volume_rows.register_volume(instance.database, known)
    instance.volumes.refresh()
    return instance.volumes.get(volume_id)


@dataclass
class BucketSite:
    """A bucket of an endpoint in this process."""

    volume: Volume
    client: Any
    bucket: str
    is_file_system: bool = False

    def get(self, path: str) -> bytes:
        """What is there."""
        content: bytes = self.client.get_object(Bucket=self.bucket, Key=path)["Body"].read()
        return content

    def put(self, path: str, content: bytes) -> None:
        """Write over what is there, or anew."""
        self.client.put_object(Bucket=self.bucket, Key=path, Body=content)

    def delete(self, path: str) -> None:
        """Take it away."""
        self.client.delete_object(Bucket=self.bucket, Key=path)

    def paths(self, top: str) -> list[str]:
        """Every path below a folder, sorted."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{top}/")
        return sorted(each["Key"] for page in pages for each in page.get("Contents", ()))


def bucket_site(instance: Instance, request: pytest.FixtureRequest) -> Site:
    """A bucket in tier 3."""
    import boto3

    from tests.fix_bucket import write_credentials
    from tests.remote.swift import ACCESS_KEY, SECRET_KEY

    url, name = request.getfixturevalue("moto_url"), f"pacs-{uuid.uuid4().hex[:12]}"
    client = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name="us-east-1"
    )
    client.create_bucket(Bucket=name)
    request.addfinalizer(client.close)
    secrets = secrets_of(instance.settings.data, volume_rows.KnownVolume("", "far", 3, ""))
    secrets.parent.mkdir(exist_ok=True)
    write_credentials(secrets, ACCESS_KEY, SECRET_KEY)
    location, options = f"s3://{name}", {"endpoint": url}
    identity = Place("s3", location, options, secrets).make("tier3", instance.volumes.tier(1)[0].identity.appliance_id)
    return BucketSite(_known(instance, identity.volume_id, location, "s3", options), client, name)


#: Kind of volume → what makes one beside tier 1.
SITES: dict[str, Callable[[Instance, pytest.FixtureRequest], Site]] = {
    "local": local_site,
    "share": share_site,
    "s3": bucket_site,
}


def store(instance: Instance, objects: list[SyntheticObject], association_key: int | None = None) -> None:
    """Store objects on tier 1."""
    receiving = instance.store()
    for made in objects:
        receiving.store(
            Arrival(made.dataset, made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid, association_key)
        )


def copies(instance: Instance, volume: Volume | None = None) -> list[Row]:
    """The copies there are, or those on a volume: copy_key, object_key, volume_id, path, state, sha256, uid."""
    with instance.database.transaction() as connection:
        rows = connection.execute(
            "SELECT c.copy_key, c.object_key, c.volume_id::text, c.path, c.state, o.sha256, o.sop_instance_uid AS uid"
            " FROM copy c JOIN object o USING (object_key) ORDER BY c.object_key, c.copy_key"
        ).fetchall()
    return [row for row in rows if volume is None or row["volume_id"] == volume.volume_id]


def double(instance: Instance, target: Volume) -> None:
    """Give every object a second copy, on another volume."""
    for row in copies(instance):
        if row["volume_id"] == target.volume_id:
            continue
        source = instance.volumes.get(row["volume_id"])
        path = fresh_path(row["path"])
        content = b"".join(source.read(row["path"]))
        assert target.put(path, [content], len(content)) == bytes(row["sha256"])
        with instance.database.transaction() as connection:
            volume_rows.add_copy(connection, row["object_key"], target.volume_id, path)


def doubled(instance: Instance, site: Site, objects: int, seed: int = 1) -> list[SyntheticObject]:
    """An archive of one study in two copies each: on tier 1, and on the site."""
    made = ct_study(seed, objects)
    store(instance, made)
    double(instance, site.volume)
    return made


# --- damage: each takes a site, a path of a good file and the path of another, and leaves a copy that is not good -----

Damage = Callable[[Site, str, str], None]


def _flip(at: float) -> Damage:
    def damage(site: Site, path: str, _other: str) -> None:
        content = bytearray(site.get(path))
        content[min(len(content) - 1, int(at * len(content)))] ^= 1 << random.Random(path).randrange(8)
        site.put(path, bytes(content))

    return damage


def _change(to: Callable[[bytes], bytes]) -> Damage:
    return lambda site, path, _other: site.put(path, to(site.get(path)))


def _delete(site: Site, path: str, _other: str) -> None:
    site.delete(path)


def _others_bytes(site: Site, path: str, other: str) -> None:
    site.put(path, site.get(other))


DAMAGES: dict[str, Damage] = {
    "first byte": _flip(0.0),
    "preamble": _change(lambda content: bytes([1]) + content[1:]),
    "file meta": _change(lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:]),
    "quarter": _flip(0.25),
    "middle": _flip(0.5),
    "last byte": _flip(1.0),
    "without its last byte": _change(lambda content: content[:-1]),
    "half": _change(lambda content: content[: len(content) // 2]),
    "empty": _change(lambda _content: b""),
    "a byte more": _change(lambda content: content + b"\0"),
    "a page more": _change(lambda content: content + bytes(4096)),
    "zeros": _change(lambda content: bytes(len(content))),
    "gone": _delete,
    "another object's bytes": _others_bytes,
}


def _folder(site: Site, path: str, _other: str) -> None:
    assert isinstance(site, LocalSite)
    site.delete(path)
    (site.root / path).mkdir()


def _full_folder(site: Site, path: str, other: str) -> None:
    _folder(site, path, other)
    site.put(f"{path}/thesis.txt", b"somebody's")


def _link(site: Site, path: str, other: str) -> None:
    assert isinstance(site, LocalSite)
    site.delete(path)
    (site.root / path).symlink_to(site.root / other)


def _link_to_itself(site: Site, path: str, _other: str) -> None:
    """To a whole file, elsewhere: it is no copy of its own."""
    assert isinstance(site, LocalSite)
    elsewhere = site.root / "elsewhere" / Path(path).name
    elsewhere.parent.mkdir(exist_ok=True)
    (site.root / path).rename(elsewhere)
    (site.root / path).symlink_to(elsewhere)


def _pipe(site: Site, path: str, _other: str) -> None:
    assert isinstance(site, LocalSite)
    site.delete(path)
    os.mkfifo(site.root / path)


FILE_SYSTEM_DAMAGES: dict[str, Damage] = {
    "a folder in its place": _folder,
    "a folder with a file in its place": _full_folder,
    "a link to another in its place": _link,
    "a link to its own bytes elsewhere": _link_to_itself,
    "a pipe in its place": _pipe,
}


def damages_of(site: Site) -> dict[str, Damage]:
    """All that can be done to a file of the site."""
    return DAMAGES | FILE_SYSTEM_DAMAGES if site.is_file_system else dict(DAMAGES)
