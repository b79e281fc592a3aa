"""DICOM over TLS: the profiles of BCP 195 (PS3.15 B.12: RFC 8996 and RFC 9325).

TLS 1.3, and TLS 1.2 with the four suites that RFC 9325 4.2 recommends; nothing older is spoken, so nothing can be
talked down. Key, certificate and the certificates we trust are files that may be replaced at any time: each handshake
looks whether they have changed. Files that do not fit together leave the ones before in use.

A client's certificate must be one we trust, or issued by one. Which device it belongs to is told by its SHA-256.
"""

from __future__ import annotations

import hashlib
import logging
import re
import socket
import ssl
import threading
from pathlib import Path
from typing import Literal

from pacs.errors import SettingsError, TryAgainLater

log = logging.getLogger(__name__)

ClientCertificate = Literal["none", "optional", "required"]

#: RFC 9325 4.2; ECDHE_RSA_AES_128_GCM also stands in PS3.15 B.12. TLS 1.3's own suites are always on.
CIPHER_SUITES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
)
_PEM = re.compile("-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
KEY, CERTIFICATE, TRUSTED = "key.pem", "certificate.pem", "trusted.pem"


class TlsUnavailable(TryAgainLater):
    """There is no key and certificate for TLS that can be used. See `pacs tls show`."""


class TlsFailed(TryAgainLater):
    """TLS was not agreed on with the peer."""


class Tls:
    """This archive's end of TLS connections, from the files in a folder."""

    def __init__(self, folder: Path, client_certificate: ClientCertificate) -> None:
        self.folder, self.client_certificate = folder, client_certificate
        self._lock = threading.Lock()
        self._server: ssl.SSLContext | None = None
        self._read: tuple[object, ...] | None = None

    def accept(self, connection: socket.socket, timeout_s: float) -> ssl.SSLSocket:
        """Shake hands with a client that has connected, for timeout_s at most [s]. Raise TlsUnavailable, TlsFailed.

        Takes the connection over; it is closed when this fails.
        """
        try:
            context = self._server_context()
            connection.settimeout(timeout_s)
            return context.wrap_socket(connection, server_side=True)
        except OSError as error:  # SSLError, TimeoutError and what else can happen to a connection
            connection.close()
            raise TlsFailed(f"No TLS connection: {_reason(error)}.") from error
        except TlsUnavailable:
            connection.close()
            raise

    def connect(self, connection: socket.socket, certificate_sha256: str | None) -> ssl.SSLSocket:
        """Shake hands with a server that we connected to, showing our own certificate. Raise as `accept` does.

        Its certificate must have this SHA-256; where none is given it must be trusted. Its name is not looked at:
        devices are known by address, and their certificates rarely name it.
        """
        try:
            context = _context(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            _load_own(context, self.folder)
            if certificate_sha256 is None:
                _load_trusted(context, self.folder)
            else:
                context.verify_mode = ssl.CERT_NONE
            wrapped = context.wrap_socket(connection)
        except OSError as error:
            connection.close()
            raise TlsFailed(f"no TLS connection: {_reason(error)}") from error
        if certificate_sha256 is not None and peer_sha256(wrapped) != certificate_sha256:
            wrapped.close()
            raise TlsFailed("it shows another certificate than the device's. Was it replaced?")
        return wrapped

    def _server_context(self) -> ssl.SSLContext:
        with self._lock:
            now = tuple(_state(self.folder / name) for name in (KEY, CERTIFICATE, TRUSTED))
            if now != self._read:
                self._read = now
                try:
                    self._server = self._load()
                    log.info("TLS certificate read", extra={"path": self.folder / CERTIFICATE})
                except (OSError, ValueError) as error:
                    log.error(
                        "the files for TLS cannot be used (%s); %s. See `pacs tls show`.",
                        _reason(error),
                        "those before serve on" if self._server else "the TLS port serves nobody",
                        extra={"path": self.folder},
                    )
            if self._server is None:
                raise TlsUnavailable
            return self._server

    def _load(self) -> ssl.SSLContext:
        context = _context(ssl.PROTOCOL_TLS_SERVER)
        _load_own(context, self.folder)
        # Our own certificate, not its issuers': whoever has its key is us. The selftest shows it.
        own = certificates_in((self.folder / CERTIFICATE).read_text("utf-8"))[0]
        if self.client_certificate == "required" or (
            self.client_certificate == "optional" and (self.folder / TRUSTED).exists()
        ):
            _load_trusted(context, self.folder)
            context.load_verify_locations(cadata=own)
            required = self.client_certificate == "required"
            context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        return context


def own_client_context(folder: Path) -> ssl.SSLContext:
    """For calling ourselves, with our own certificate; which one is shown there is compared with `own_sha256`. Raise
    SettingsError if the files cannot be used."""
    check_files(folder)
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _load_own(context, folder)
    return context


def own_sha256(folder: Path) -> str:
    """SHA-256 [hexadecimal] of our own certificate."""
    return sha256_of_pem((folder / CERTIFICATE).read_text("utf-8"))


def peer_sha256(connection: socket.socket) -> str | None:
    """SHA-256 [hexadecimal] of the certificate that the peer showed; None if it showed none, or there is no TLS."""
    if not isinstance(connection, ssl.SSLSocket):
        return None
    certificate = connection.getpeercert(binary_form=True)
    return hashlib.sha256(certificate).hexdigest() if certificate else None


def certificates_in(text: str) -> list[str]:
    """The certificates in a PEM file's text, each by itself."""
    return _PEM.findall(text)


def sha256_of_pem(text: str) -> str:
    """SHA-256 [hexadecimal] of the first certificate in a PEM file's text, which must have one."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificates_in(text)[0])).hexdigest()


def check_files(folder: Path, certificate: Path | None = None, key: Path | None = None) -> None:
    """Raise SettingsError unless key and certificate fit together and the trusted ones can be read."""
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate or folder / CERTIFICATE, key or folder / KEY, password=_no_passphrase)
        if (folder / TRUSTED).exists():
            _load_trusted(context, folder)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"Key and certificates for TLS cannot be used: {_reason(error)}. `pacs tls install` puts others there."
        ) from error


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(":".join(CIPHER_SUITES))
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_NO_TICKET  # each connection shows its certificate again
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    return context


def _load_own(context: ssl.SSLContext, folder: Path) -> None:
    # A key with a passphrase would ask for it on a terminal that is not there: it is an error instead.
    context.load_cert_chain(folder / CERTIFICATE, folder / KEY, password=_no_passphrase)


def _load_trusted(context: ssl.SSLContext, folder: Path) -> None:
    context.load_verify_locations(folder / TRUSTED)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a device's own certificate may be trusted by itself


def _no_passphrase() -> str:
    raise ValueError("its key has a passphrase; store it without one")


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _reason(error: Exception) -> str:
    """What went wrong, without file names and numbers of lines in OpenSSL."""
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return str(reason).replace("_", " ").lower()
