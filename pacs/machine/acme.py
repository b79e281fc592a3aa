"""A certificate from an ACME server (RFC 8555), for HTTPS and DICOM: Debian's certbot asks, over HTTP-01.

The server calls http://HOST-NAME/.well-known/acme-challenge/, which nginx answers from a folder that certbot fills. An
internal server whose authority nobody else knows is trusted by the setting own_ca. The account's key is on the state
volume, and in the backup.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from pacs.errors import UsageError
from pacs.machine.commands import run
from pacs.net.certificate_files import look_at
from pacs.net.tls import CERTIFICATE

log = logging.getLogger(__name__)

#: Renewed with so much left, or a third of its life [days].
RENEW_DAYS = 35.0
_NAME = "pacs"
_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class Acme:
    """Where certificates come from. folder: certbot's memory; webroot: what nginx shows; scratch: its logs."""

    directory: str
    mail: str
    host_name: str
    folder: Path
    webroot: Path = Path("/run/pacs-acme")
    scratch: Path = Path("/run/pacs-certbot")
    port: int = 80
    bundle: Path = _BUNDLE

    @property
    def key(self) -> Path:
        """The key of the certificate that was issued last."""
        return self.folder / "live" / _NAME / "privkey.pem"

    @property
    def chain(self) -> Path:
        """That certificate, and its issuers'."""
        return self.folder / "live" / _NAME / "fullchain.pem"

    def is_due(self, folder: Path) -> bool:
        """Whether the certificate in use (in folder) is another one, for another name, or near its end."""
        if not self.chain.exists() or (folder / CERTIFICATE).read_bytes() != self.chain.read_bytes():
            return True
        seen = look_at(self.key, self.chain)
        return seen.days_left < max(RENEW_DAYS, seen.lifetime_days / 3) or self.host_name not in seen.names

    def ask(self) -> None:
        """Have a new certificate issued. Raise UsageError, or MachineError with what the server said."""
        if "." not in self.host_name:
            raise UsageError(
                f"An ACME server knows machines by their full name, and this one is {self.host_name!r}. Set it: sudo "
                "pacs machine set host_name=pacs.hospital.example"
            )
        for path in (self.folder, self.scratch):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.webroot.mkdir(mode=0o755, exist_ok=True)
        # certbot trusts its own list of authorities; the machine's has those and own_ca.
        os.environ["REQUESTS_CA_BUNDLE"] = str(self.bundle)
        # A server that was changed wants an account of its own: certbot keeps them apart by the server's address.
        run(
            "certbot", "certonly", "--non-interactive", "--agree-tos", "--quiet", "--force-renewal",
            "--cert-name", _NAME, "--domains", self.host_name, "--server", self.directory,
            *(("--email", self.mail) if self.mail else ("--register-unsafely-without-email",)),
            "--webroot", "--webroot-path", str(self.webroot), "--http-01-port", str(self.port),
            "--key-type", "rsa", "--rsa-key-size", "3072", "--config-dir", str(self.folder),
            "--work-dir", str(self.scratch), "--logs-dir", str(self.scratch),
        )  # fmt: skip
        log.info("a certificate was issued by %s", self.directory)
