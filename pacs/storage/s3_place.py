"""The place of a volume in a bucket: reached, found empty or a volume, made one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore import exceptions as botocore_errors

from pacs.errors import NotFound, PacsError, UsageError, VolumeFailed, VolumeMissing
from pacs.storage.s3_client import Place, connect, of_answer, read_credentials, reading, split_location, translated
from pacs.storage.s3_upload import Uploads
from pacs.storage.volume import IDENTITY_FILE, VolumeIdentity, identity_content, new_identity, parse_identity

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


def reach(location: str, options: Mapping[str, Any], credentials_file: Path) -> tuple[S3Client, Place]:
    """A client for s3://bucket/prefix. A ca_file without a folder stands beside the file of credentials."""
    bucket, prefix = split_location(location)
    endpoint = options.get("endpoint") or f"Amazon S3 in {options.get('region', 'us-east-1')}"
    place = Place(bucket, prefix, endpoint, credentials_file)
    if isinstance(options.get("ca_file"), str):
        options = {**options, "ca_file": str(credentials_file.parent / options["ca_file"])}
    with translated(place):
        return connect(options, read_credentials(credentials_file)), place


def read_identity_object(client: S3Client, place: Place) -> VolumeIdentity:
    """The identity of the volume there. Raise VolumeMissing if there is none."""
    with reading(place):
        try:
            answer = client.get_object(Bucket=place.bucket, Key=place.prefix + IDENTITY_FILE)
            content = answer["Body"].read()  # all of it: a part read would not tell that it broke off
        except botocore_errors.ClientError as error:
            if isinstance(of_answer(error, place), NotFound):
                raise VolumeMissing(
                    f"There is no volume at {place.location}: {IDENTITY_FILE} is missing. Is it the right bucket and "
                    "prefix, and was it emptied?"
                ) from error
            raise
    return parse_identity(content, place.location)


def identity_at(location: str, options: Mapping[str, Any], credentials_file: Path) -> VolumeIdentity | None:
    """The identity of the volume there; None if nothing is. Raise UsageError if it is neither."""
    client, place = reach(location, options, credentials_file)
    with reading(place):
        found = client.list_objects_v2(Bucket=place.bucket, Prefix=place.prefix, MaxKeys=10).get("Contents", [])
    if not found:
        return None
    try:
        return read_identity_object(client, place)
    except VolumeMissing:
        raise UsageError(
            f"{location} is no volume and not empty: it holds {found[0]['Key']}. Take a prefix of its own."
        ) from None


def make_at(
    location: str, options: Mapping[str, Any], credentials_file: Path, role: str, appliance_id: str
) -> VolumeIdentity:
    """Make an empty prefix a volume, and read its identity back."""
    client, place = reach(location, options, credentials_file)
    identity = new_identity((role,), appliance_id)
    content = identity_content(identity)
    is_locked = bool(options.get("retention_days"))
    Uploads(client, place, is_locked).put(place.prefix + IDENTITY_FILE, [content], len(content))
    if read_identity_object(client, place) != identity:
        raise VolumeFailed(f"{location} gave back another object than was written. Look at the endpoint.")
    return identity


def unmake_at(location: str, options: Mapping[str, Any], credentials_file: Path) -> None:
    """Remove the identity of a volume that was made a moment ago."""
    with contextlib.suppress(PacsError):
        client, place = reach(location, options, credentials_file)
        with translated(place):
            client.delete_object(Bucket=place.bucket, Key=place.prefix + IDENTITY_FILE)
