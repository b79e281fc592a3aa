"""What a modality's engineer types into the modality, on one sheet. No secret stands on it, and no patient's data."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

from pacs.machine.changing import Machine
from pacs.machine.menu_network import own_addresses

TLS_PORT = 2762  # PS3.8 9.1.2, dicom-tls


def sheet_of(machine: Machine, addresses: tuple[str, ...] | None = None) -> str:
    """The sheet, in lines of at most 72 characters. addresses: this machine's, if they are not to be looked up."""
    values = machine.values()
    found = own_addresses() if addresses is None else addresses
    ports = values["dicom_ports"].split()
    lines = [f"AE title      {values['ae_title']}", f"Address       {found[0] if found else 'none yet'}"]
    lines += [f"              {address}" for address in found[1:]]
    lines += [f"Host name     {values['host_name']}"] if values["host_name"] else []
    lines += [f"Port          {ports[0]}" + (f"   (or {', '.join(ports[1:])})" if len(ports) > 1 else "")]
    lines += [f"Port, TLS     {TLS_PORT}   TLS 1.2 or newer", *_fingerprint(machine.state), ""]
    lines += ["Services      C-STORE, storage commitment, C-FIND, C-MOVE, C-GET, C-ECHO"]
    lines += ["Send to it once: it is refused, and stands in the menu's First image,"]
    lines += ["where it is accepted with its AE title and its address."]
    return "\n".join(lines)


def _fingerprint(state: Path) -> list[str]:
    """SHA-256 of the certificate that DICOM over TLS shows, in two lines."""
    try:
        text = (state / "identity/dicom-tls/certificate.pem").read_text("ascii")
        first = text[text.index("-----BEGIN") : text.index("-----END CERTIFICATE-----") + 25]
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()
    except (OSError, ValueError):
        return []
    return [f"Certificate   SHA-256 {digest[:32]}", f"                      {digest[32:]}"]
