"""The certificate that nginx shows: put in its place, tried, and taken back if nginx cannot use it; renewed."""

from __future__ import annotations

import logging
import shutil
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pacs.errors import UsageError
from pacs.machine import authority
from pacs.machine.commands import MachineError, run
from pacs.net.certificate_files import put
from pacs.net.tls import CERTIFICATE, KEY

log = logging.getLogger(__name__)

#: Own certificates are renewed with so much left: long before `pacs check` warns [days].
RENEW_DAYS = 45


def put_for_web(folder: Path, key: str, certificate: str) -> None:
    """Put a pair that was looked at in the place of the web server's, and have it used from the next connection on.

    Raise UsageError if nginx does not take it; the one before then serves on.
    """
    before = [(folder / name).read_text("utf-8") for name in (KEY, CERTIFICATE)]
    put(folder, key, certificate)
    if shutil.which("nginx") is None:
        return
    try:
        run("nginx", "-t", "-q")
    except MachineError as error:
        put(folder, *before)
        raise UsageError(f"nginx does not take it, so the one before serves on: {error}") from error
    run("systemctl", "reload", "nginx.service", accept=range(256))  # not running: it reads it when it starts


def renew_own(folder: Path, days: int, names: Sequence[str] = (), former: Path | None = None) -> bool:
    """Issue a certificate anew that the own authority issued, when its end is near or it is not for these names.

    With the same key, so that who holds on to that is not cut off. Whether it was; somebody's own is left alone, but
    not `former`: what an ACME server issued that is not asked any more.
    """
    ca, now = authority.folder_beside(folder), folder / CERTIFICATE
    is_former = former is not None and former.exists() and former.read_bytes() == now.read_bytes()
    if not (ca / CERTIFICATE).exists() or not (is_former or authority.issued(ca, now)):
        return False
    known = authority.names_of(now)
    if not is_former and authority.lasts(now, RENEW_DAYS) and set(names) <= known:
        return False
    with tempfile.TemporaryDirectory(prefix="pacs-certificate-", dir="/dev/shm") as scratch:
        key, certificate = Path(scratch, KEY), Path(scratch, CERTIFICATE)
        key.touch(mode=0o600)
        key.write_bytes((folder / KEY).read_bytes())
        authority.issue(ca, tuple(names) or (socket.gethostname(), *sorted(known)), days, key, certificate)
        pair = key.read_text("ascii"), certificate.read_text("ascii")
    if folder.name == "tls":
        put_for_web(folder, *pair)
    else:
        put(folder, *pair)
    log.info("the certificate is renewed", extra={"path": folder})
    return True
