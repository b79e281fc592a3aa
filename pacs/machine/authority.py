"""The appliance's own authority: made on the first boot, it issues the certificates for HTTPS and DICOM.

Whoever trusts `identity/ca/certificate.pem` trusts the appliance for its life, also when a certificate is renewed. RSA,
as many devices know nothing else. Its key leaves the state volume only in the backup, sealed. Needs openssl alone: the
boot path makes it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from pacs.machine.commands import MachineError, output, run
from pacs.net.tls import CERTIFICATE, KEY
from pacs.storage import durable

FOLDER = "ca"
_YEARS = 20
#: Browsers take no longer ones; it is renewed by a timer. Devices hold on to theirs.
WEB_DAYS, DICOM_DAYS = 397, 3650
_DAY_S = 86400
#: Kinds of keys, as `openssl req -newkey` takes them.
RSA: tuple[str, ...] = ("rsa:3072",)
EC: tuple[str, ...] = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")


def folder_beside(folder: Path) -> Path:
    """Where the authority of a certificate's folder is."""
    return folder.parent / FOLDER


def have(folder: Path, kind: tuple[str, ...] = RSA) -> None:
    """Have the authority in folder; made if there is none. The certificate is for everybody, the key for root."""
    if (folder / CERTIFICATE).exists():
        return
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    unfinished = folder / "unfinished.pem"
    run(
        "openssl", "req", "-x509", "-newkey", *kind, "-nodes", "-sha256", "-days", str(_YEARS * 365),
        "-subj", f"/CN=PACS appliance CA {secrets.token_hex(3)}",
        "-addext", "basicConstraints=critical,CA:TRUE,pathlen:0", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        "-keyout", str(folder / KEY), "-out", str(unfinished),
    )  # fmt: skip
    (folder / KEY).chmod(0o600)
    durable.replace_file(folder / KEY, (folder / KEY).read_bytes(), 0o600)
    durable.replace_file(folder / CERTIFICATE, unfinished.read_bytes(), 0o644)  # last: where it is, both are
    for path, mode in ((folder, 0o755), (folder / CERTIFICATE, 0o644)):  # whatever the umask
        path.chmod(mode)
    unfinished.unlink()


def issue(
    authority: Path, names: Sequence[str], days: int, key: Path, certificate: Path, kind: tuple[str, ...] = RSA
) -> None:
    """Issue a certificate for names (DNS or addresses), the authority's behind it; its key is made if need be."""
    own = ("-key", str(key)) if key.exists() else ("-newkey", *kind, "-nodes", "-keyout", str(key))
    alternatives = ",".join(f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in dict.fromkeys(names))
    run(
        "openssl", "req", "-x509", *own, "-CA", str(authority / CERTIFICATE), "-CAkey", str(authority / KEY),
        "-sha256", "-days", str(days), "-subj", f"/CN={names[0][:64]}", "-addext", f"subjectAltName={alternatives}",
        "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth,clientAuth",
        "-out", str(certificate),
    )  # fmt: skip
    text = certificate.read_text("ascii") + (authority / CERTIFICATE).read_text("ascii")
    certificate.write_text(text, "ascii")


def issued(authority: Path, certificate: Path) -> bool:
    """Whether a certificate is the authority's: else somebody has put their own there, and it is left alone."""
    try:
        run("openssl", "verify", "-no_check_time", "-CAfile", str(authority / CERTIFICATE), str(certificate))
    except MachineError:
        return False
    return True


def lasts(certificate: Path, days: float) -> bool:
    """Whether a certificate is good for so many days more."""
    words = ("openssl", "x509", "-noout", "-checkend", str(int(days * _DAY_S)), "-in", str(certificate))
    return run(*words, accept=(0, 1)).returncode == 0


def names_of(certificate: Path) -> set[str]:
    """The names and addresses that a certificate is for."""
    said = output("openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", str(certificate))
    return {found.strip() for found in re.findall(r"(?:DNS|IP Address):([^,\s]+)", said)}


def _is_address(name: str) -> bool:
    return ":" in name or name.replace(".", "").isdecimal()
