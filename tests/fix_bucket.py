"""Buckets to test volumes in: of moto in this process, and in the long form of Swift, a real object store."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.remote.faulty import FaultyEndpoint
from tests.remote.root import far_root
from tests.remote.swift import ACCESS_KEY, SECRET_KEY, Swift

APPLIANCE_ID = str(uuid.UUID(int=1))


@dataclass
class Bucket:
    """A new bucket behind an endpoint that can be made to fail; `client` goes past that, straight to the real one."""

    server: str
    name: str
    endpoint: FaultyEndpoint
    client: Any
    credentials: Path
    #: Options of a volume in it; waiting is kept short.
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def location(self) -> str:
        return f"s3://{self.name}/archive"

    def put(self, path: str, content: bytes) -> None:
        """Put an object behind the volume's back."""
        self.client.put_object(Bucket=self.name, Key=f"archive/{path}", Body=content)

    def get(self, path: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=f"archive/{path}")["Body"].read()

    def listing(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return sorted(each["Key"] for page in pages for each in page.get("Contents", ()))


def write_credentials(path: Path, access_key_id: str, secret_access_key: str, mode: int = 0o600) -> Path:
    """A volume's file of secrets."""
    path.touch(mode)
    path.chmod(mode)
    path.write_text(f'access_key_id = "{access_key_id}"\nsecret_access_key = "{secret_access_key}"\n')
    return path


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """moto's S3, in this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def swift_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Swift's S3, on loopback."""
    server = Swift(Path(far_root()), tmp_path_factory.mktemp("swift"))
    try:
        yield server.start().endpoint
    finally:
        server.stop()


@pytest.fixture(params=["moto", pytest.param("swift", marks=pytest.mark.long)])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bucket]:
    """A new, empty bucket."""
    import boto3
    from botocore.config import Config

    url = request.getfixturevalue(f"{request.param}_url")
    endpoint = FaultyEndpoint(url)
    config = Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required")
    client = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1", config=config,
    )  # fmt: skip
    name = f"pacs-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    options = {"endpoint": endpoint.url, "connect_timeout_s": 2, "read_timeout_s": 2, "attempts": 2}
    credentials = write_credentials(tmp_path / "credentials.toml", ACCESS_KEY, SECRET_KEY)
    yield Bucket(request.param, name, endpoint, client, credentials, options)
    endpoint.stop()
    client.close()
