"""Who asks, and whether they may: every request of DICOMweb goes through here, and nobody asks without a name.

A program shows a token (`pacs token add`): `Authorization: Bearer <token>`, or as the password of Basic, with any user
name, for clients that know nothing else. This is the one place where a request gets its caller: the console's sign-in
adds its session here, as another way to a Caller.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import threading
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request

from pacs import clock
from pacs.archive.tokens import digest_of
from pacs.errors import Forbidden, Unauthenticated
from pacs.index import tokens
from pacs.index.database import Database
from pacs.model.audit import MINOR, event, peer
from pacs.storage.audit_writer import AuditWriter
from pacs.storage.lineage import LineageFiles

#: Whoever is refused again and again is told of so often [s]; so many addresses are remembered.
_TOLD_EVERY_S, _TOLD_MAX = 60.0, 1000
_TOKEN_LENGTH_MAX = 256


@dataclass(frozen=True)
class Caller:
    """Who asks: a token's name, and where it came from."""

    name: str
    address: str
    scopes: tuple[str, ...]

    @property
    def by(self) -> dict[str, str]:
        """As the audit log has it."""
        return peer("", self.address, self.name)


class Access:
    """Gives requests their callers."""

    def __init__(self, data: Path, database: Database, audit: AuditWriter, is_behind_proxy: bool) -> None:
        """is_behind_proxy: nginx is between, which says where a request came from."""
        self.database, self.audit, self.is_behind_proxy = database, audit, is_behind_proxy
        self._fence = LineageFiles(data)
        self._told: dict[str, float] = {}
        self._lock = threading.Lock()

    def caller(self, request: Request, scope: str) -> Caller:
        """Who asks. Raise Unauthenticated if that is not known, Forbidden if they may not do what `scope` is for,
        Fenced if another node has taken over."""
        self._fence.require_readable()
        address = self.address_of(request)
        secret = _secret_of(request.headers.get("authorization", ""))
        token = tokens.token_of(self.database, digest_of(secret)) if secret else None
        if token is None:
            if secret:
                self._tell(address, "", "a token that is not known, or over")
            raise Unauthenticated
        if token.networks and not _is_in(address, token.networks):
            self._tell(address, token.name, "a token that is not good at this address")
            raise Forbidden("The token is not good at this address. `pacs token list` shows where it is.")
        if scope not in token.scopes:
            self._tell(address, token.name, f"a token without the scope {scope}")
            raise Forbidden(f"The token is not for this: it lacks the scope `{scope}`. Make another: `pacs token add`.")
        return Caller(token.name, address, token.scopes)

    def address_of(self, request: Request) -> str:
        """Where a request came from."""
        if self.is_behind_proxy:
            return request.headers.get("x-forwarded-for", "")[:64]
        return request.client.host if request.client else ""

    def _tell(self, address: str, name: str, reason: str) -> None:
        now_s = clock.monotonic_s()
        with self._lock:
            if now_s - self._told.get(address, float("-inf")) < _TOLD_EVERY_S:
                return
            if len(self._told) >= _TOLD_MAX:
                self._told.clear()
            self._told[address] = now_s
        self.audit.note(event("login", peer("", address, name), MINOR, text=f"DICOMweb: {reason}"))


def _secret_of(authorization: str) -> str:
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()[:_TOKEN_LENGTH_MAX]
    if scheme.lower() == "basic":
        try:
            return (
                base64.b64decode(value, validate=True).decode("utf-8", "replace").partition(":")[2][:_TOKEN_LENGTH_MAX]
            )
        except (binascii.Error, ValueError):
            return ""
    return ""


def _is_in(address: str, networks: tuple[str, ...]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return any((mapped or found) in ipaddress.ip_network(network) for network in networks)
