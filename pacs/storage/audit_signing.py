"""The archive's Ed25519 key (pacs/storage/keyring.py) under the heads of its audit log. There is one when there is a
repository; without one heads are not signed, and count by being kept elsewhere."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pacs.model.audit_chain import Head, VerifySignature, signature_text, signed_text
from pacs.storage.audit import Sign
from pacs.storage.keyring import KEYRING_FILE, Keyring, keys_folder


def _key(data: Path) -> Ed25519PrivateKey | None:
    if not (keys_folder(data) / KEYRING_FILE).exists():
        return None
    return Ed25519PrivateKey.from_private_bytes(Keyring.open(data).signing_key)


def sign_with(data: Path) -> Sign | None:
    """What signs a head; None if there is no key. Raise BackupError if it cannot be read."""
    key = _key(data)
    return None if key is None else lambda head: signature_text(key.sign(signed_text(head)))


def verify_with(data: Path) -> VerifySignature | None:
    """What says whether a signature is this archive's; None if there is no key. Raise BackupError."""
    key = _key(data)
    if key is None:
        return None
    public = key.public_key()

    def is_ours(head: Head, signature: str) -> bool:
        try:
            public.verify(base64.b64decode(signature, validate=True), signed_text(head))
        except (InvalidSignature, binascii.Error):
            return False
        return True

    return is_ours
