"""Who vouches for an OVA: the .cert file beside its manifest (DSP0243 1.1, 5.1), as ovftool writes and reads it.

    SHA256(pacs-appliance-1.2.3.mf)= the manifest's RSA signature (PKCS #1 v1.5, SHA-256) in hex
    -----BEGIN CERTIFICATE----- the signer's X.509 certificate, then those between it and a known one

PACS_OVA_KEY           a file with the RSA private key (PEM, without a passphrase); without it an OVA is not signed
PACS_OVA_CERTIFICATE   a file with its certificate (PEM), followed by those in between if there are any
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from packer.errors import BuildError

_LINE = re.compile(rb"SHA256\(([A-Za-z0-9._-]+)\)= ([0-9a-f]+)\r?\n")
_KEY_BITS_MIN = 2048
_NAME_BOTH = "Name the key in PACS_OVA_KEY and its certificate in PACS_OVA_CERTIFICATE, both PEM, or neither."


class SignatureError(Exception):
    """The signature of an OVA is not what it claims to be; the message says why."""


@dataclass(frozen=True)
class Signer:
    """A private key, and the certificates that say whose it is, the key's own first."""

    key: rsa.RSAPrivateKey
    certificates: tuple[x509.Certificate, ...]

    @property
    def name(self) -> str:
        """The subject of the certificate."""
        return self.certificates[0].subject.rfc4514_string()

    def sign(self, manifest_name: str, manifest: bytes) -> bytes:
        """The .cert file for a manifest. PKCS #1 v1.5 has no chance in it: the same manifest, the same bytes."""
        signed = self.key.sign(manifest, padding.PKCS1v15(), hashes.SHA256())
        chain = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in self.certificates)
        return f"SHA256({manifest_name})= {signed.hex()}\n".encode() + chain


def signer_of_environment() -> Signer | None:
    """The signer that the build's user named, if any. Raise BuildError for one that can't sign."""
    named = os.environ.get("PACS_OVA_KEY"), os.environ.get("PACS_OVA_CERTIFICATE")
    if not any(named):
        return None
    if not all(named):
        raise BuildError("Only one half of what signs the OVA is named.", _NAME_BOTH)
    return read_signer(Path(str(named[0])), Path(str(named[1])))


def read_signer(key_file: Path, certificate_file: Path) -> Signer:
    """A signer from its two files. Raise BuildError for one that can't sign, or that nobody would believe."""
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        certificates = tuple(read_certificates(certificate_file))
    except (OSError, ValueError, TypeError) as error:
        raise BuildError(f"What signs the OVA can't be read: {error}.", _NAME_BOTH) from error
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < _KEY_BITS_MIN:
        raise BuildError(f"{key_file} is no RSA key of {_KEY_BITS_MIN} bits or more.", "ovftool knows no other kind.")
    if certificates[0].public_key() != key.public_key():
        raise BuildError(f"{certificate_file} does not begin with the certificate of that key.", _NAME_BOTH)
    if why := _not_valid(certificates[0]):
        raise BuildError(f"{certificate_file}: {why}.", "Have it renewed first.")
    return Signer(key, certificates)


def read_certificates(file: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file, at least one. Raise OSError or ValueError."""
    return x509.load_pem_x509_certificates(file.read_bytes())


def verify(cert: bytes, manifest_name: str, manifest: bytes, trusted: Sequence[x509.Certificate] = ()) -> str:
    """Check a .cert file against its manifest; the signer's name.

    With `trusted` certificates the signer must be one of them, or lead to one of them. Raise SignatureError.
    """
    line = _LINE.match(cert)
    if not line:
        raise SignatureError("the .cert file does not begin with SHA256(manifest)= and hex digits")
    if line[1].decode() != manifest_name:
        raise SignatureError(f"the .cert file signs {line[1].decode()}, not {manifest_name}")
    try:
        chain = x509.load_pem_x509_certificates(cert[line.end() :])
    except ValueError as error:
        raise SignatureError(f"the .cert file holds no certificate that can be read ({error})") from error
    key = chain[0].public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise SignatureError("the certificate's key is not RSA")
    try:
        key.verify(bytes.fromhex(line[2].decode()), manifest, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError) as error:
        raise SignatureError("the signature does not belong to this manifest and this certificate") from error
    if trusted:
        _lead_to(chain, trusted)
    return chain[0].subject.rfc4514_string()


def _lead_to(chain: Sequence[x509.Certificate], trusted: Sequence[x509.Certificate]) -> None:
    """Follow the chain until a certificate is trusted or issued by one that is. Raise SignatureError."""
    for position, certificate in enumerate(chain):
        if why := _not_valid(certificate):
            raise SignatureError(why)
        if certificate in trusted or any(_issued(certificate, issuer) for issuer in trusted):
            return
        if position + 1 < len(chain) and not _issued(certificate, chain[position + 1]):
            break
    raise SignatureError(f"the signer, {chain[0].subject.rfc4514_string()}, is not who you trust")


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer` may issue certificates, is valid now, and has issued this one (RFC 5280, 6.1)."""
    try:
        if not issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca or _not_valid(issuer):
            return False
        certificate.verify_directly_issued_by(issuer)
    except (x509.ExtensionNotFound, InvalidSignature, ValueError, TypeError):
        return False
    return True


def _not_valid(certificate: x509.Certificate) -> str:
    now = datetime.datetime.now(datetime.UTC)
    name = certificate.subject.rfc4514_string()
    if now > certificate.not_valid_after_utc:
        return f"the certificate of {name} ended on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if now < certificate.not_valid_before_utc:
        return f"the certificate of {name} begins on {certificate.not_valid_before_utc:%Y-%m-%d}"
    return ""
