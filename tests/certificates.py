"""Keys and self-signed certificates for tests of TLS."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """A private key and a self-signed certificate, as files."""

    key: Path
    certificate: Path

    @property
    def sha256(self) -> str:
        """SHA-256 of the certificate, hexadecimal."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).hexdigest()


def make_certificate(folder: Path, name: str, kind: str = "rsa:2048", alternative_name: str = "") -> Certificate:
    """A new key and certificate in a folder. kind: `rsa:2048` or `ec`; alternative_name such as `IP:127.0.0.1`."""
    made = Certificate(folder / f"{name}.key", folder / f"{name}.pem")
    extra = ["-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "ec" else []
    extra += ["-addext", f"subjectAltName={alternative_name}"] if alternative_name else []
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", kind, *extra, "-nodes", "-days", "2", "-subj", f"/CN={name}",
         "-keyout", made.key, "-out", made.certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return made
