"""Whether a known caller is let in: its certificate, its user, and how many associations it has.

Who is known at all is negotiation's to say.
"""

from __future__ import annotations

import shlex
import socket
import ssl
from dataclasses import dataclass
from typing import Any

from pacs.archive.users import Users
from pacs.errors import PacsError
from pacs.index.database import Database
from pacs.index.devices import Device, list_devices
from pacs.index.refusals import RefusalKind
from pacs.index.selftest import SELFTEST
from pacs.net import identity
from pacs.net.negotiation import REJECTED_CONGESTION, REJECTED_NO_REASON, REJECTED_TOO_MANY, Rejection
from pacs.net.places import Place, Places
from pacs.net.tls import peer_sha256
from pacs.settings import Settings


@dataclass(frozen=True)
class Problem:
    """Why a caller is not let in: the rejection it gets, and what is noted of it."""

    rejection: Rejection
    kind: RefusalKind
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class LetIn:
    """A caller that is let in: the user's name if it said one, what it is to be answered about that, and the
    certificate that it showed (SHA-256; empty if none)."""

    user_name: str
    responses: list[Any]
    certificate_sha256: str = ""


class Doorkeeper:
    """Judges callers. One for a receiver; all of an instance count their associations together."""

    def __init__(self, settings: Settings, database: Database, users: Users) -> None:
        self.settings, self.database, self.users = settings, database, users
        self._places = Places(settings.runtime_folder / "associations.lock")

    def judge(self, device: Device | None, connection: socket.socket, user_information: list[Any]) -> LetIn | Problem:
        """Look at a caller's certificate and user. device is None for who is taken without being known."""
        if device is SELFTEST:  # of this machine, and over its own tables
            return LetIn("", [])
        is_tls = isinstance(connection, ssl.SSLSocket)
        try:
            shown = peer_sha256(connection)
            problem = self._certificate_problem(device, is_tls, shown)
            if problem is not None:
                return problem
            is_required = self.settings.user_identity == "required"
            decision = identity.decide(user_information, is_tls, is_required, self.users)
        except PacsError as error:
            return Problem(REJECTED_CONGESTION, RefusalKind.USER_IDENTITY, str(error), "not looked at")
        if decision.problem is not None:
            return Problem(REJECTED_NO_REASON, RefusalKind.USER_IDENTITY, decision.problem)
        responses = identity.positive_response(user_information) if decision.is_confirmed else []
        return LetIn(decision.user_name, responses, shown or "")

    def take_place(self) -> Place | None:
        """A place for one association more, whoever's; None if there is none left."""
        return self._places.take("", self.settings.associations_max)

    def enter(self, device: Device | None) -> Place | Problem | None:
        """The device's place for one association more, None where it has no limit, or that it has too many."""
        if device is None or device.associations_max is None:
            return None
        place = self._places.take(device.name, device.associations_max)
        if place is not None:
            return place
        reason = (
            f"device {device.name} has {device.associations_max} associations open, as many as it may. "
            f"`pacs device change {shlex.quote(device.name)} --associations-max` lets it have more."
        )
        return Problem(REJECTED_TOO_MANY, RefusalKind.LIMIT, reason, "of the device")

    def leave(self, place: Place | None) -> None:
        """An association that had this place is over."""
        if place is not None:
            self._places.give_back(place)

    def _certificate_problem(self, device: Device | None, is_tls: bool, shown: str | None) -> Problem | None:
        bound = device.tls_certificate_sha256 if device else None
        if bound is not None and shown != bound:
            if shown is not None:
                reason, detail = "it showed another certificate than the one that its device is bound to", shown
            else:
                detail = "called over TLS without a certificate" if is_tls else "called without TLS"
                reason = f"it {detail}, and its device is bound to one. Give the device both"
            return Problem(REJECTED_NO_REASON, RefusalKind.TLS, f"{reason}. `pacs device pending`.", detail)
        if bound is None and shown is not None:
            for other in list_devices(self.database):
                if other.tls_certificate_sha256 == shown:
                    reason = f"it showed the certificate of device {other.name}. Give each device its own."
                    return Problem(REJECTED_NO_REASON, RefusalKind.TLS, reason, f"certificate of {other.name}")
        return None
