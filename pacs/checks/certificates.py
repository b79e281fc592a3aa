"""For how long are the certificates good: this archive's for DICOM and for HTTPS, and those of devices it trusts?"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from pacs import clock
from pacs.checks.check import Figure, Ground, Result, Severity
from pacs.net.tls import CERTIFICATE, TRUSTED, certificates_in

#: With so much left, or less, it is told [days].
WARNING_DAYS, CRITICAL_DAYS = 30.0, 7.0
_WEB_SERVER, _TIMEOUT_S = ("127.0.0.1", 443), 3.0


@dataclass(frozen=True)
class Known:
    """A certificate, and what it is for."""

    use: str
    name: str
    days_left: float
    #: Whether it is one that we show; else one that a device shows.
    is_own: bool


def run(ground: Ground) -> Result:
    """Look at each certificate's last day."""
    data, known, unreadable = ground.settings.data, [], []
    for use, path, is_own in (
        ("DICOM", ground.settings.tls_folder / CERTIFICATE, True),
        ("HTTPS", data / "identity" / "tls" / CERTIFICATE, True),
        ("trusted", ground.settings.tls_folder / TRUSTED, False),
    ):
        try:
            known += _read(use, path, is_own)
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            unreadable.append(f"{use}: {path} cannot be read, or is not shown")
    if unreadable:
        return Result(
            "certificates", "critical", "; ".join(unreadable), "`pacs tls show`; `pacs tls install` puts others."
        )
    return judged(known)


def judged(known: list[Known]) -> Result:
    """What is to be said of certificates."""
    if not known:
        return Result("certificates", "ok", "there is none")
    figures = tuple(
        Figure(f"{each.use.lower()}_days", round(each.days_left, 1), WARNING_DAYS, CRITICAL_DAYS)
        for each in known if each.is_own
    )  # fmt: skip
    late = sorted((each for each in known if each.days_left < WARNING_DAYS), key=lambda each: each.days_left)
    if not late:
        said = ", ".join(f"{each.use}: {each.days_left:.0f} days" for each in known if each.is_own)
        others = sum(not each.is_own for each in known)
        return Result("certificates", "ok", said + (f"; {others} trusted, all good" if others else ""), "", figures)
    severity: Severity = (
        "critical" if any(each.is_own and each.days_left < CRITICAL_DAYS for each in late) else "warning"
    )
    said = "; ".join(f"{each.use} ({each.name}) {_left(each.days_left)}" for each in late)
    return Result(
        "certificates", severity, said,
        "Why it was not renewed: `journalctl -u pacs-certificates`. Or put a new one in its place: `pacs tls install` "
        "(docs/operate/certificates.md); a device's: `pacs tls trust`.",
        figures,
    )  # fmt: skip


def _left(days: float) -> str:
    return "has expired" if days < 0 else f"is good for {days:.0f} days more"


def _content(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except PermissionError:  # the web server's folder is root's: what it shows is its certificate
        return ssl.get_server_certificate(_WEB_SERVER, timeout=_TIMEOUT_S)


def _read(use: str, path: Path, is_own: bool) -> list[Known]:
    found = []
    texts = certificates_in(_content(path))
    if is_own and not texts:
        raise ValueError(path)
    for text in texts[:1] if is_own else texts:
        certificate = x509.load_pem_x509_certificate(text.encode())
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        left = (certificate.not_valid_after_utc - clock.now()).total_seconds() / 86400
        found.append(Known(use, str(names[0].value) if names else "no name", left, is_own))
    return found
