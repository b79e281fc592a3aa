"""Object lock of a bucket: what was put stays for so many days, whoever has the keys that put it.

The bucket locks each new version by its default retention. An archive keeps objects longer than that, so it is renewed
when they are read again, by the scrub: always before it ends, as every copy is read in half that time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from botocore import exceptions as botocore_errors

from pacs import clock
from pacs.storage.s3_client import Place, code_of, translated

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

#: It is renewed when less than this part of it is left.
_RENEWED_BELOW = 2 / 3


@dataclass(frozen=True)
class Lock:
    """A bucket's default retention. mode: COMPLIANCE, which nobody takes back, or GOVERNANCE, which some may."""

    mode: str
    days: int


def lock_of(client: S3Client, place: Place) -> Lock | None:
    """How a bucket locks what is put into it; None if it does not."""
    with translated(place):
        try:
            found = client.get_object_lock_configuration(Bucket=place.bucket).get("ObjectLockConfiguration", {})
        except botocore_errors.ClientError as error:
            if code_of(error) in ("ObjectLockConfigurationNotFoundError", "NotImplemented", "MethodNotAllowed", "404"):
                return None
            raise
    default = found.get("Rule", {}).get("DefaultRetention", {})
    days = default.get("Days", 0) + 365 * default.get("Years", 0)
    return Lock(default["Mode"], days) if "Mode" in default and days else None


def renew(client: S3Client, place: Place, key: str, retention_days: int) -> bool:
    """Have an object kept for so many days from now, if it is not for most of them already; whether it was renewed."""
    now = clock.now()
    with translated(place):
        found = client.head_object(Bucket=place.bucket, Key=key)
        until, mode = found.get("ObjectLockRetainUntilDate"), found.get("ObjectLockMode")
        if "VersionId" not in found:  # the bucket has no lock; `pacs backup repository verify` says so
            return False
        if until is not None and until - now > timedelta(days=_RENEWED_BELOW * retention_days):
            return False
        client.put_object_retention(
            Bucket=place.bucket, Key=key, VersionId=found["VersionId"],
            Retention={"Mode": mode or "COMPLIANCE", "RetainUntilDate": now + timedelta(days=retention_days)},
        )  # fmt: skip
    return True
