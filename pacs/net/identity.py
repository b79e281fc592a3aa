"""User Identity negotiation (PS3.7 D.3.3.7): who a requestor says its user is, and whether that counts.

A user name alone proves nothing and is only noted. A passcode is taken over TLS only, and compared with the users of
`pacs dicom-user`; where there are none it is not looked at. Kerberos, SAML and JWT are ignored, as the Standard lets
an acceptor do: it then makes no positive response.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from pynetdicom.pdu_primitives import UserIdentityNegotiation

from pacs.archive.users import Users


class IdentityType(IntEnum):
    """User-Identity-Type, PS3.7 Table D.3-14."""

    USERNAME = 1
    USERNAME_AND_PASSCODE = 2
    KERBEROS = 3
    SAML = 4
    JWT = 5


#: The types that are looked at.
KNOWN_TYPES = (IdentityType.USERNAME, IdentityType.USERNAME_AND_PASSCODE)


@dataclass(frozen=True)
class Decision:
    """What becomes of a request's user identity. problem: why the association is rejected, a sentence."""

    problem: str | None = None
    user_name: str = ""
    is_confirmed: bool = False  # a positive response is made if it was asked for


def decide(items: list[Any], is_tls: bool, is_required: bool, users: Users) -> Decision:
    """Judge the user identity among a request's user information items. Takes a moment: passcodes are hashed slowly."""
    identity = next((item for item in items if isinstance(item, UserIdentityNegotiation)), None)
    kind = None if identity is None else identity.user_identity_type
    user_name = "" if identity is None or kind not in KNOWN_TYPES else _text(identity.primary_field)
    if identity is not None and kind == IdentityType.USERNAME_AND_PASSCODE:
        if not is_tls:
            return Decision(
                "It sent a passcode over a connection that is not encrypted. Give the device the TLS port, change the "
                "passcode (others may have read it), or send no passcode."
            )
        names = users.names()
        if names or is_required:
            if user_name in names and users.is_passcode(user_name, identity.secondary_field or b""):
                return Decision(user_name=user_name, is_confirmed=True)
            return Decision("Its user name or passcode is not right. `pacs dicom-user list` shows who is known.")
        return Decision(user_name=user_name)
    if is_required:
        return Decision("It sent no user name and passcode, which the setting user_identity demands.")
    return Decision(user_name=user_name, is_confirmed=kind == IdentityType.USERNAME)


def positive_response(items: list[Any]) -> list[Any]:
    """The item that says that an identity was accepted, if the requestor asked for one (PS3.7 D.3.3.7.2)."""
    for item in items:
        if isinstance(item, UserIdentityNegotiation) and item.positive_response_requested:
            response = UserIdentityNegotiation()
            response.server_response = b""
            return [response]
    return []


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")[:64]
