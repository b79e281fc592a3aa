"""Certificates: the own authority, an own certificate put in, renewal, and a real ACME server (pebble) on loopback."""

from __future__ import annotations

import contextlib
import datetime
import functools
import http.server
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs.errors import PacsError, UsageError
from pacs.machine import authority
from pacs.machine.acme import Acme
from pacs.machine.commands import MachineError
from pacs.machine.identity import make_dicom_tls, make_tls
from pacs.machine.web_certificate import renew_own
from pacs.net import certificate_files
from tests.certificates import make_certificate

_NAME = "pacs.hospital.example"


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    """The identity of an appliance at its first start."""
    folder = tmp_path / "identity"
    make_tls(folder / "tls", _NAME)
    return folder


def _shown(folder: Path, trusted: Path, name: str = _NAME) -> bytes:
    """Shake hands with a server that uses a folder's pair, as a client that trusts `trusted` alone; what it showed."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with contextlib.suppress(OSError), server.wrap_socket(theirs, server_side=True) as wrapped:
            wrapped.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client = ssl.create_default_context(cafile=str(trusted))
        with client.wrap_socket(ours, server_hostname=name) as wrapped:
            shown = wrapped.getpeercert(binary_form=True)
            assert shown
            return shown
    finally:
        ours.close()
        thread.join()


def test_who_trusts_the_appliances_authority_trusts_what_it_shows(identity: Path) -> None:
    make_dicom_tls(identity / "dicom-tls", _NAME)
    ca = identity / "ca/certificate.pem"
    assert _shown(identity / "tls", ca) != _shown(identity / "dicom-tls", ca)
    with pytest.raises(ssl.SSLCertVerificationError):
        _shown(identity / "tls", ca, "other.example")
    assert (identity / "ca/key.pem").stat().st_mode & 0o777 == 0o600
    assert ca.stat().st_mode & 0o777 == 0o644


def test_a_renewed_certificate_has_the_same_key_and_the_new_names(identity: Path) -> None:
    tls, ca = identity / "tls", identity / "ca/certificate.pem"
    before, key = _shown(tls, ca), (tls / "key.pem").read_bytes()
    assert not renew_own(tls, authority.WEB_DAYS, (_NAME, "pacs", "localhost"))
    assert renew_own(tls, authority.WEB_DAYS, (_NAME, "pacs", "localhost", "192.0.2.10", "2001:db8::10"))
    assert _shown(tls, ca, "192.0.2.10") != before
    assert (tls / "key.pem").read_bytes() == key
    # Near its end.
    authority.issue(identity / "ca", (_NAME,), 10, tls / "key.pem", tls / "certificate.pem")
    assert renew_own(tls, authority.WEB_DAYS, (_NAME,))
    assert authority.lasts(tls / "certificate.pem", 300)


def test_a_certificate_that_somebody_put_there_is_not_renewed(identity: Path, tmp_path: Path) -> None:
    own = make_certificate(tmp_path, "own", "ec")
    certificate_files.put(identity / "tls", own.key.read_text(), own.certificate.read_text())
    assert not renew_own(identity / "tls", authority.WEB_DAYS, ("new.example",))
    assert (identity / "tls/certificate.pem").read_text() == own.certificate.read_text()


def _chain(folder: Path) -> tuple[Path, Path, Path]:
    """A key, its certificate alone, and that of its issuer."""
    authority.have(folder / "ca", authority.EC)
    key, both = folder / "leaf.key", folder / "leaf.pem"
    authority.issue(folder / "ca", (_NAME,), 30, key, both, authority.EC)
    alone = folder / "alone.pem"
    alone.write_text(certificate_files.certificates_in(both.read_text())[0] + "\n")
    return key, alone, folder / "ca/certificate.pem"


def test_what_is_wrong_with_a_certificate_is_said_before_it_is_used(tmp_path: Path) -> None:
    key, alone, issuer = _chain(tmp_path)
    whole, turned = tmp_path / "whole.pem", tmp_path / "turned.pem"
    whole.write_text(alone.read_text() + issuer.read_text())
    turned.write_text(whole.read_text() + alone.read_text())
    seen = certificate_files.look_at(key, whole, _NAME)
    assert seen.names == (_NAME,)
    assert 29 < seen.days_left <= 30
    assert seen.notes == ()
    assert len(certificate_files.look_at(key, alone, "other.example").notes) == 2
    with pytest.raises(UsageError, match="was not issued by"):
        certificate_files.look_at(key, turned)
    with pytest.raises(PacsError, match="cannot be used"):
        certificate_files.look_at(make_certificate(tmp_path, "other").key, whole)
    with pytest.raises(UsageError, match="no certificate"):
        certificate_files.look_at(key, key)


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    _, alone, issuer = _chain(tmp_path)
    now = datetime.datetime.now(datetime.UTC)
    old, key = tmp_path / "old.pem", tmp_path / "old.key"
    begin, end = (f"{now - datetime.timedelta(days=days):%y%m%d%H%M%SZ}" for days in (9, 3))
    config, request = tmp_path / "ca.cnf", tmp_path / "request.pem"
    (tmp_path / "index").touch()
    config.write_text(f"[ca]\ndefault_ca=x\n[x]\ndatabase={tmp_path}/index\nnew_certs_dir={tmp_path}\nrand_serial=yes\n"
                      "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n")  # fmt: skip
    for words in (
        ["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=old", "-keyout", key, "-out", request],
        ["ca", "-batch", "-config", config, "-cert", issuer, "-keyfile", issuer.with_name("key.pem"), "-in", request,
         "-out", old, "-notext", "-startdate", begin, "-enddate", end],
    ):  # fmt: skip
        subprocess.run(["openssl", *words], check=True, capture_output=True)
    assert alone.exists()
    with pytest.raises(UsageError, match="expired on"):
        certificate_files.look_at(key, old)


def test_a_replacement_that_was_cut_short_is_ended_or_dropped(identity: Path, tmp_path: Path) -> None:
    tls, own = identity / "tls", make_certificate(tmp_path, "own")
    before = (tls / "certificate.pem").read_text()
    new = tls / "new"
    new.mkdir()
    (new / "key.pem").write_text(own.key.read_text())
    make_tls(tls, _NAME)  # as at each start
    assert (tls / "certificate.pem").read_text() == before
    assert not new.exists()
    new.mkdir()
    for name, path in (("key.pem", own.key), ("certificate.pem", own.certificate)):
        (new / name).write_text(path.read_text())
    (tls / "key.pem").write_text(own.key.read_text())  # the cut was between the two
    make_tls(tls, _NAME)
    assert (tls / "certificate.pem").read_text() == own.certificate.read_text()
    assert not new.exists()


# --- ACME ------------------------------------------------------------------------------------------------------------


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@pytest.fixture
def acme(tmp_path: Path) -> Iterator[Acme]:
    """A client of an ACME server of its own, which finds our web root at the name it is asked for."""
    if not all(map(shutil.which, ("pebble", "pebble-challtestsrv", "certbot"))):
        pytest.skip("needs Debian's pebble and certbot")
    api, management, web, tls_port, dns, beside = _free_ports(6)
    server = make_certificate(tmp_path, "localhost", alternative_name="DNS:localhost,IP:127.0.0.1")
    config = {"listenAddress": f"127.0.0.1:{api}", "managementListenAddress": f"127.0.0.1:{management}",
              "certificate": str(server.certificate), "privateKey": str(server.key), "httpPort": web,
              "tlsPort": tls_port, "ocspResponderURL": "", "externalAccountBindingRequired": False}  # fmt: skip
    (tmp_path / "pebble.json").write_text(json.dumps({"pebble": config}))
    webroot = tmp_path / "webroot"
    webroot.mkdir()
    environment = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
    names = ["pebble-challtestsrv", "-dns01", f"127.0.0.1:{dns}", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "",
             "-http01", "", "-https01", "", "-tlsalpn01", "", "-management",
             f"127.0.0.1:{beside}"]  # fmt: skip
    authority_ = ["pebble", "-config", str(tmp_path / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns}"]

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's)
            pass

    handler = functools.partial(Quiet, directory=str(webroot))
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", web), handler) as serving,
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(names, stdout=log, stderr=log) as first,
        subprocess.Popen(authority_, stdout=log, stderr=log, env=environment) as second,
    ):
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        try:
            _wait_for(api)
            yield Acme(
                f"https://localhost:{api}/dir", "", _NAME, tmp_path / "acme", webroot, tmp_path / "scratch",
                bundle=server.certificate,
            )  # fmt: skip
        finally:
            first.terminate()
            second.terminate()
            serving.shutdown()
            thread.join()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError("the ACME server does not answer")


@pytest.mark.long
def test_an_acme_server_issues_a_certificate_for_the_machines_name(acme: Acme, identity: Path) -> None:
    tls = identity / "tls"
    assert acme.is_due(tls)
    acme.ask()
    seen = certificate_files.look_at(acme.key, acme.chain, _NAME)
    assert seen.names == (_NAME,)
    certificate_files.put(tls, acme.key.read_text(), acme.chain.read_text())
    assert not acme.is_due(tls), "it is asked again only when it is time"
    before = acme.chain.read_text()
    acme.ask()
    assert acme.chain.read_text() != before
    assert acme.is_due(tls)
    # It is not asked any more: the own authority takes over, also from a certificate that it did not issue.
    certificate_files.put(tls, acme.key.read_text(), acme.chain.read_text())
    assert renew_own(tls, authority.WEB_DAYS, (_NAME,), acme.chain)
    assert _shown(tls, identity / "ca/certificate.pem")


@pytest.mark.long
def test_an_acme_server_that_does_not_find_us_is_told_of_and_nothing_changes(acme: Acme, identity: Path) -> None:
    before = (identity / "tls/certificate.pem").read_text()
    shutil.rmtree(acme.webroot)
    elsewhere = Acme(**{**acme.__dict__, "webroot": acme.scratch.with_name("elsewhere")})
    with pytest.raises(MachineError, match="certbot"):
        elsewhere.ask()
    assert not acme.chain.exists()
    assert (identity / "tls/certificate.pem").read_text() == before


def test_an_acme_server_is_not_asked_for_half_a_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="host_name"):
        Acme("https://localhost/dir", "", "pacs", tmp_path).ask()
