"""A certificate that two nodes hold the same archive: signed with the archive's Ed25519 key, without patient data.

    {"format": 1, "says": "…", "nodes": [statement, statement], "at": "…", "public_key": "…", "signature": "…"}

What is signed is the JSON without its signature, keys sorted, no blanks, behind a line of its own.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pacs import clock
from pacs.archive.holdings import Statement
from pacs.errors import DataTooNew, DigestMismatch, UsageError, WrongKey
from pacs.storage.keyring import Keyring

FORMAT = 1
SAYS = "Both nodes have read every object of this archive from their own disks, and hold the same."
_SIGNED = b"pacs certificate of equality 1\n"


def parse_statement(content: str) -> Statement:
    """What another node says that it holds. Raise UsageError if it is nothing of that kind, or DataTooNew."""
    try:
        found = json.loads(content)
        if found["format"] > FORMAT:
            raise DataTooNew("The other node is of a newer version. Bring both to the same one.")
        return Statement(**found)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError("That is not what `pacs holdings state --json` prints. Give it as it is.") from error


def certify(ours: Statement, theirs: Statement, keyring: Keyring) -> bytes:
    """The certificate. Raise DigestMismatch if they are not equal, or one lacks something."""
    if ours.appliance_id == theirs.appliance_id:
        raise UsageError("Both are of this node. Give what the other one says: `pacs holdings state --json` there.")
    for each in (ours, theirs):
        if each.lacking:
            raise DigestMismatch(
                f"Appliance {each.appliance_id} has not read {each.lacking} of its {each.objects} objects as whole. "
                "`pacs holdings read` there; if that stays so, `pacs repair list` and `pacs volume list` there."
            )
    if (ours.objects, ours.size_bytes, ours.digest) != (theirs.objects, theirs.size_bytes, theirs.digest):
        raise DigestMismatch(
            f"They are not equal: {ours.objects} objects here, {theirs.objects} there. Does one of them still get new "
            "ones? Then stop that, and say it again on both."
        )
    key = Ed25519PrivateKey.from_private_bytes(keyring.signing_key)
    text = {
        "format": FORMAT, "says": SAYS, "nodes": [asdict(ours), asdict(theirs)],
        "at": clock.now().isoformat(timespec="seconds"),
        "public_key": base64.b64encode(key.public_key().public_bytes_raw()).decode(),
    }  # fmt: skip
    signature = base64.b64encode(key.sign(_signed(text))).decode()
    return (json.dumps({**text, "signature": signature}, indent=1) + "\n").encode()


def verify(content: bytes, keyring: Keyring) -> dict[str, Any]:
    """What a certificate says. Raise WrongKey if it was not signed with this archive's key, or changed since."""
    try:
        found: dict[str, Any] = json.loads(content)
        signature = base64.b64decode(found.pop("signature"))
        key = Ed25519PrivateKey.from_private_bytes(keyring.signing_key).public_key()
        key.verify(signature, _signed(found))
    except (ValueError, KeyError, TypeError, AttributeError, InvalidSignature):
        raise WrongKey("It was not signed with this archive's key, or was changed since. It proves nothing.") from None
    return found


def _signed(text: Mapping[str, Any]) -> bytes:
    return _SIGNED + json.dumps(text, sort_keys=True, separators=(",", ":")).encode()
