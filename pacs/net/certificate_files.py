"""Key and certificate as files: looked at before they replace what is there, and replaced so that a cut leaves a pair.

    new/key.pem, new/certificate.pem  →  key.pem  →  certificate.pem  →  new/ removed

Whoever finds `new/` with a pair that fits ends it: a power cut between the two files cannot leave a key beside another
key's certificate.
"""

from __future__ import annotations

import itertools
import shutil
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pacs import clock
from pacs.errors import UsageError
from pacs.net.tls import CERTIFICATE, KEY, certificates_in, check_files
from pacs.storage import durable

_NEW = "new"


@dataclass(frozen=True)
class Seen:
    """What a certificate file holds. names: that the first certificate is for; notes: what a person should know."""

    subject: str
    names: tuple[str, ...]
    days_left: float
    lifetime_days: float
    notes: tuple[str, ...]


def look_at(key: Path, certificate: Path, host_name: str = "") -> Seen:
    """Look at a key and its certificates before they are used. Raise UsageError or SettingsError that says what is
    wrong: not PEM, not each other's, expired, not yet valid, or issuers that are not in their order."""
    from cryptography import x509  # here, as the boot path ends what was begun, and needs none of the libraries

    try:
        texts = certificates_in(certificate.read_text("utf-8"))
        chain = [x509.load_pem_x509_certificate(text.encode()) for text in texts]
    except (OSError, ValueError) as error:
        raise UsageError(f"{certificate} cannot be read as certificates in PEM ({error}).") from error
    if not chain:
        raise UsageError(f"{certificate} holds no certificate in PEM. Convert it with `openssl x509`.")
    check_files(certificate.parent, certificate=certificate, key=key)
    now = clock.now()
    for each in chain:
        if each.not_valid_after_utc < now:
            raise UsageError(f"The certificate of {_subject(each)} expired on {each.not_valid_after_utc:%Y-%m-%d}.")
        if each.not_valid_before_utc > now:
            raise UsageError(
                f"The certificate of {_subject(each)} counts only from {each.not_valid_before_utc:%Y-%m-%d %H:%M} UTC "
                "on. Is this machine's time right?"
            )
    for below, above in itertools.pairwise(chain):
        try:
            below.verify_directly_issued_by(above)
        except Exception as error:  # ValueError, TypeError, InvalidSignature
            raise UsageError(
                f"{_subject(below)} was not issued by {_subject(above)}, which stands behind it in {certificate}. Put "
                "the archive's own certificate first, then that of its issuer, then that of the issuer's issuer."
            ) from error
    return _seen(chain, host_name)


def put(folder: Path, key: str, certificate: str) -> None:
    """Put a pair that was looked at in the place of the one there. Who owns the folder is who calls this."""
    new = folder / _NEW
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    durable.replace_file(new / KEY, key.encode(), 0o600)
    durable.replace_file(new / CERTIFICATE, certificate.encode(), 0o600)
    durable.fsync_folder(folder)
    end(folder)


def end(folder: Path) -> None:
    """End a replacement that was begun; one that was cut short before both files were there is dropped."""
    new = folder / _NEW
    if not new.is_dir():
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(new / CERTIFICATE, new / KEY)
    except (OSError, ValueError):
        shutil.rmtree(new)
        return
    status = folder.stat()
    for name in (KEY, CERTIFICATE):
        durable.replace_file(folder / name, (new / name).read_bytes(), 0o600)
        shutil.chown(folder / name, status.st_uid, status.st_gid)
    shutil.rmtree(new)
    durable.fsync_folder(folder)


def _seen(chain: Sequence[object], host_name: str) -> Seen:
    from cryptography import x509

    own, last = chain[0], chain[-1]
    assert isinstance(own, x509.Certificate)
    assert isinstance(last, x509.Certificate)
    try:
        found = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = (*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress)))
    except x509.ExtensionNotFound:
        names = ()
    notes = []
    if last.issuer != last.subject and len(chain) == 1:
        notes.append("It comes without its issuer's certificates: who knows only the root will refuse it.")
    if host_name and not any(_is_for(name, host_name) for name in names):
        notes.append(f"It is for {', '.join(names) or 'no name'}, and this machine is {host_name}.")
    left, life = own.not_valid_after_utc - clock.now(), own.not_valid_after_utc - own.not_valid_before_utc
    return Seen(_subject(own), names, left.total_seconds() / 86400, life.total_seconds() / 86400, tuple(notes))


def _is_for(name: str, host_name: str) -> bool:
    if name.startswith("*."):
        return host_name.partition(".")[2].lower() == name[2:].lower()
    return name.lower() == host_name.lower()


def _subject(certificate: object) -> str:
    from cryptography import x509

    assert isinstance(certificate, x509.Certificate)
    return certificate.subject.rfc4514_string() or "a certificate without a subject"
