"""Backup repositories for tests, in a folder and in a bucket: added, shipped to, their files planted."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pacs.archive.volume_places import Given
from pacs.backup.repositories import Repository
from pacs.backup.repository_changes import RepositoryChanges, Wanted
from pacs.backup.shipping import Shipped, Shipper
from pacs.cli.instance import Instance
from pacs.storage.sealed import SealedVolume
from tests.planting import BucketSite, LocalSite, Site
from tests.sftp_server import SftpServer


@dataclass
class InRepository:
    """A repository of an instance, and its files as they lie in its place."""

    repository: Repository
    site: Site

    @property
    def name(self) -> str:
        return self.repository.name


def changes(instance: Instance) -> RepositoryChanges:
    """What `pacs backup repository` calls."""
    return RepositoryChanges(instance.database, instance.settings.data, instance.volumes)


def add_folder(instance: Instance, folder: Path, name: str = "far", **wanted: Any) -> InRepository:
    """Make a folder a repository of an instance."""
    folder.mkdir(exist_ok=True)
    added = changes(instance).add(name, str(folder), Given(on_system_disk=True), Wanted(**wanted))
    return InRepository(added.repository, LocalSite(sealed(instance, added.repository), folder))


def add_bucket(
    instance: Instance, request: pytest.FixtureRequest, name: str = "far", locked_days: int = 0
) -> InRepository:
    """Make a new bucket of moto's a repository of an instance."""
    import boto3

    from tests.remote.swift import ACCESS_KEY, SECRET_KEY

    url, bucket = request.getfixturevalue("moto_url"), f"pacs-{uuid.uuid4().hex[:12]}"
    client = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name="us-east-1"
    )
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=bool(locked_days))
    if locked_days:
        rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": locked_days}}
        configuration = {"ObjectLockEnabled": "Enabled", "Rule": rule}
        client.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=configuration)
    request.addfinalizer(client.close)
    credentials = f'access_key_id = "{ACCESS_KEY}"\nsecret_access_key = "{SECRET_KEY}"\n'.encode()
    options = {"endpoint": url, **({"retention_days": 180} if locked_days else {})}
    added = changes(instance).add(name, f"s3://{bucket}", Given(options, credentials))
    return InRepository(added.repository, BucketSite(sealed(instance, added.repository), client, bucket))


def _folder(instance: Instance, request: pytest.FixtureRequest) -> InRepository:
    return add_folder(instance, request.getfixturevalue("tmp_path") / "repository")


def add_sftp(instance: Instance, request: pytest.FixtureRequest, name: str = "far") -> InRepository:
    """Make a folder of an SFTP server a repository of an instance."""
    folder: Path = request.getfixturevalue("tmp_path") / "on-server"
    server: SftpServer = request.getfixturevalue("sftp_server")
    added = changes(instance).add(name, server.location(folder), Given({"timeout_s": 10}, server.login))
    return InRepository(added.repository, LocalSite(sealed(instance, added.repository), folder))


#: Kind of place → what makes a repository there.
PLACES: dict[str, Callable[[Instance, pytest.FixtureRequest], InRepository]] = {
    "local": _folder,
    "s3": add_bucket,
    "sftp": add_sftp,
}


def sealed(instance: Instance, repository: Repository) -> SealedVolume:
    """An instance's repository, opened."""
    found = instance.volumes.get(repository.volume_id)
    assert isinstance(found, SealedVolume)
    return found


def ship(instance: Instance, repository: Repository) -> Shipped:
    """One turn of shipping."""
    shipper = Shipper(instance.database, instance.volumes)
    try:
        return shipper.run(repository)
    finally:
        shipper.close()
