"""How an S3 endpoint is spoken to: its options, its credentials, bounded retries, and what its errors mean here.

Credentials come from a file of the instance's configuration that nobody else may read; they are in no log, no message
and no row. Retries are botocore's standard ones, with back-off and jitter; what is left after them is an error of the
tree that says what to do.
"""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore import exceptions as botocore_errors
from botocore.config import Config

from pacs.errors import (
    NotFound,
    PacsError,
    SettingsError,
    TryAgainLater,
    UsageError,
    VolumeFailed,
    VolumeFull,
    VolumeMissing,
)

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

#: How often a request is tried, the first time included.
ATTEMPTS = 4
_CONNECT_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 30.0
_CONNECTIONS_MAX = 32

_NOT_THERE = {"NoSuchKey", "NoSuchUpload", "NoSuchVersion", "404", "NotFound"}
_BUSY = {"SlowDown", "ServiceUnavailable", "Throttling", "ThrottlingException", "RequestLimitExceeded", "503", "429",
         "TooManyRequests", "OperationAborted"}  # fmt: skip
_FULL = {"QuotaExceeded", "InsufficientStorage", "EntityTooLarge", "507"}
_REFUSED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled", "AccountProblem",
            "ExpiredToken", "InvalidToken", "AuthorizationHeaderMalformed", "401", "403", "Forbidden"}  # fmt: skip


@dataclass(frozen=True)
class Credentials:
    """What requests are signed with. Never shown, not by its own representation either."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Place:
    """Where a volume is: a bucket of an endpoint, and what stands before each of its keys ("" or "archive/")."""

    bucket: str
    prefix: str
    endpoint: str
    credentials_file: Path

    @property
    def location(self) -> str:
        """s3://bucket/prefix"""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def split_location(location: str) -> tuple[str, str]:
    """Bucket and prefix of s3://bucket/prefix; a prefix ends with a slash. Raise UsageError."""
    scheme, _, rest = location.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if scheme != "s3" or not bucket or ".." in prefix.split("/"):
        raise UsageError(f"{location} is no place of a bucket. Write s3://bucket or s3://bucket/prefix.")
    return bucket, f"{prefix}/" if prefix else ""


def read_credentials(path: Path) -> Credentials:
    """Credentials from a TOML file: access_key_id, secret_access_key and, where there is one, session_token.

    Raise SettingsError if it is missing, no such file, or can be read by others than its owner.
    """
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(status := stat.S_IMODE(path.stat().st_mode)) & 0o077:
                raise SettingsError(f"{path} can be read by others (mode {status:o}). Say `chmod 600 {path}`.")
            found = tomllib.load(file)
    except FileNotFoundError:
        raise SettingsError(
            f"{path} is missing: it holds access_key_id and secret_access_key of the bucket. Write it, mode 0600."
        ) from None
    except (OSError, ValueError) as error:
        # The parser's message may quote a line of the file: it is left out.
        raise SettingsError(f"{path} cannot be read as TOML ({type(error).__name__}). Correct it.") from None
    words = {name: found.get(name) for name in ("access_key_id", "secret_access_key", "session_token")}
    if unknown := found.keys() - words.keys():
        raise SettingsError(f"{path} has {', '.join(sorted(unknown))}, which means nothing here. Remove it.")
    key, secret, token = words.values()
    if not (isinstance(key, str) and key and isinstance(secret, str) and secret):
        raise SettingsError(f"{path} lacks access_key_id or secret_access_key. Write both, each in quotes.")
    if token is not None and not isinstance(token, str):
        raise SettingsError(f"{path}: session_token is no text. Write it in quotes, or remove it.")
    return Credentials(key, secret, token)


_OPTIONS: dict[str, type | tuple[type, ...]] = {
    "endpoint": str, "region": str, "ca_file": str, "path_style": bool,
    "retention_days": int,
    "connect_timeout_s": (int, float), "read_timeout_s": (int, float), "attempts": int,
}  # fmt: skip


def require_options(options: Mapping[str, Any]) -> None:
    """Raise SettingsError unless these are options of an S3 volume."""
    for name, value in options.items():
        kinds = _OPTIONS.get(name)
        if kinds is None or not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            raise SettingsError(f"An S3 volume has no option {name} = {value!r}. It knows {', '.join(_OPTIONS)}.")


def connect(options: Mapping[str, Any], credentials: Credentials) -> S3Client:
    """A client of an endpoint, for many threads.

    options: endpoint (a URL; default: Amazon's of the region), region (us-east-1), ca_file (PEM, instead of the
    system's), path_style (true with an endpoint), retention_days (none; s3_lock.py), connect_timeout_s (5),
    read_timeout_s (30), attempts (4).
    """
    require_options(options)
    endpoint, ca_file = options.get("endpoint"), options.get("ca_file")
    if ca_file is not None and not Path(ca_file).is_file():
        raise SettingsError(f"{ca_file}, the volume's ca_file, is missing. Put the certificate there, in PEM.")
    session = boto3.session.Session(
        aws_access_key_id=credentials.access_key_id,
        aws_secret_access_key=credentials.secret_access_key,
        aws_session_token=credentials.session_token,
        region_name=options.get("region", "us-east-1"),
    )
    client: S3Client = session.client(
        "s3",
        endpoint_url=endpoint,
        verify=ca_file or None,  # none: AWS_CA_BUNDLE, which names the machine's own CA too
        config=Config(
            signature_version="s3v4",
            # The payload's SHA-256 is part of the signature, over TLS too: an endpoint that checks signatures cannot
            # take a damaged body for a good one.
            s3={
                "addressing_style": "path" if options.get("path_style", endpoint is not None) else "virtual",
                "payload_signing_enabled": True,
            },
            retries={"total_max_attempts": options.get("attempts", ATTEMPTS), "mode": "standard"},
            connect_timeout=options.get("connect_timeout_s", _CONNECT_TIMEOUT_S),
            read_timeout=options.get("read_timeout_s", _READ_TIMEOUT_S),
            max_pool_connections=_CONNECTIONS_MAX,
            # Checksums are given by us, where they are wanted: some endpoints refuse the trailers of the default.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            user_agent_extra="pacs",
        ),
    )
    # What is read back is to come from the object, not from something on the way that remembers it.
    client.meta.events.register("before-sign.s3.GetObject", _past_caches)
    return client


def _past_caches(request: Any, **_given: Any) -> None:
    request.headers["Cache-Control"] = "no-cache"


@contextmanager
def translated(place: Place) -> Iterator[None]:
    """What botocore raises in the block comes out as an error of the tree."""
    try:
        yield
    except botocore_errors.ClientError as error:
        raise of_answer(error, place) from error
    except botocore_errors.BotoCoreError as error:
        raise _of_connection(error, place) from error


@contextmanager
def reading(place: Place) -> Iterator[None]:
    """The same for what only reads: an endpoint that fails says nothing of the object, whose copy is as good as it was.

    So it is the volume that is missing for the moment (VolumeMissing), but for what is the object's own (NotFound).
    """
    try:
        with translated(place):
            yield
    except TryAgainLater as error:  # VolumeFailed is one
        raise VolumeMissing(str(error)) from error


def code_of(error: botocore_errors.ClientError) -> str:
    """The code of an endpoint's error, or the HTTP status where it gave none."""
    answer: Mapping[str, Any] = error.response
    status = str(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    return str(answer.get("Error", {}).get("Code") or status)


def of_answer(error: botocore_errors.ClientError, place: Place) -> PacsError:
    """The error of the tree that an endpoint's error stands for."""
    code, where = code_of(error), place.location
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return VolumeMissing(f"{where}: the endpoint {place.endpoint} has no such bucket. Was it removed or renamed?")
    if code in _NOT_THERE:
        return NotFound(f"A file is missing from the volume {where}. Run `pacs reconcile run`.")
    if code in ("RequestTimeTooSkewed", "RequestExpired"):
        return VolumeMissing(
            f"{where}: the clocks of {place.endpoint} and of this machine are too far apart. See `chronyc tracking`."
        )
    if code in _REFUSED:
        return VolumeMissing(
            f"{where}: {place.endpoint} refused the credentials or what they may do ({code}). "
            f"Correct {place.credentials_file}, or the bucket's policy (docs/operate/s3.md)."
        )
    if code in _FULL:
        return VolumeFull(f"No room left at {where}: {code}. Enlarge its quota.")
    if code in _BUSY:
        return TryAgainLater(f"{where}: {place.endpoint} asks to slow down ({code}), {ATTEMPTS} times in a row.")
    if code in ("PermanentRedirect", "TemporaryRedirect", "301", "307", "IllegalLocationConstraintException"):
        return VolumeMissing(f"{where} is in another region than the volume's options say. Correct `region`.")
    kind = "failed" if status >= 500 else "refused the request"
    return VolumeFailed(f"{where}: {place.endpoint} {kind} ({code}). Look at its own log.")


def _of_connection(error: botocore_errors.BotoCoreError, place: Place) -> PacsError:
    where = f"{place.location} at {place.endpoint}"
    if isinstance(error, botocore_errors.SSLError):
        return VolumeMissing(
            f"{where}: its certificate is not trusted. Give the volume the certificate of who signed it (`ca_file`)."
        )
    if isinstance(error, (botocore_errors.ConnectTimeoutError, botocore_errors.EndpointConnectionError)):
        return VolumeMissing(f"{where} does not answer. Is the endpoint up, and is there a way to it?")
    if isinstance(error, (botocore_errors.HTTPClientError, botocore_errors.IncompleteReadError)):
        return VolumeFailed(f"{where} stopped half-way in an answer ({type(error).__name__}). It is tried again later.")
    return VolumeFailed(f"{where}: {type(error).__name__}. Look at the endpoint, and at the volume's options.")
