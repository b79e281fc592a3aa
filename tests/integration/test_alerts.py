"""Alerts of an instance, taken by real receivers on loopback: a mail server, an HTTPS server, a syslog server."""

from __future__ import annotations

import email
import errno
import json
import re
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword

from pacs import clock
from pacs.checks.check import Result
from pacs.checks.registry import CHECKS
from pacs.cli.operate import results_of
from pacs.jobs import alert_settings
from pacs.jobs.alert_settings import Heartbeat, Syslog, Webhook, webhook_secret
from pacs.jobs.alert_spool import KEPT_MAX, Spool
from pacs.jobs.alert_way import Alert
from pacs.jobs.alerts import Sent, hold, look_and_send, send_test
from pacs.jobs.mail_settings import MailSettings, keep, mail_settings, password_file
from pacs.jobs.mail_way import MailWay
from pacs.jobs.webhook import signature
from tests.certificates import Certificate, make_certificate
from tests.fix_instance import Dev
from tests.pages import machine
from tests.restoring import QUICK
from tests.unit.cli.conftest import Outcome, Run, run  # noqa: F401 (a fixture)

WRONG = Result("backup", "critical", "usb: the last one failed: study 1.2.840.10008.1.2.3 é", "Now: `pacs backup run`.")
WELL = Result("backup", "ok", "usb: 3 hours old")
DRILL = Result("drill", "ok", "Last proven restore: 6 hours ago, 1,200,000 objects known, 400 sampled, 0 differ")


class Box:
    """What a mail server took."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.refuses = ""

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:  # noqa: N802 (aiosmtpd's)
        if self.refuses and self.refuses.encode() in (envelope.content or b""):
            return "554 no such thing here"
        self.envelopes.append(envelope)
        return "250 OK"

    @property
    def mails(self) -> list[Message]:
        """Them, read."""
        return [email.message_from_bytes(each.content or b"", policy=default) for each in self.envelopes]  # type: ignore[arg-type]


class AnyPort(Controller):
    """A mail server on whatever port is free: the library's asks its own port 0 whether it is there."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@contextmanager
def mail_server(box: Box, **words: Any) -> Iterator[int]:
    """A mail server on a free port of this machine."""
    server = AnyPort(box, hostname="127.0.0.1", port=0, **words)
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("mail"), "mail", alternative_name="IP:127.0.0.1")


def _context(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


def _settings(data: Path, port: int, **words: Any) -> MailSettings:
    made = MailSettings("127.0.0.1", ("it@hospital.example", "b@hospital.example"), "pacs@hospital.example", port=port,
                        **{"tls": "none", **words})  # fmt: skip
    keep(data, made, None, None)
    return made


def _why(sent: list[Sent]) -> str:
    return " ".join(each.error for each in sent if each.error)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Sets the clock to so long after the start."""
    start = datetime(2026, 11, 22, 8, tzinfo=UTC)

    def put(after: timedelta) -> None:
        monkeypatch.setattr(clock, "now", lambda: start + after)

    put(timedelta(0))
    return put


def test_what_is_wrong_is_told_and_that_it_is_over(data: Path, at: Callable[[timedelta], None]) -> None:
    box = Box()
    with mail_server(box) as port:
        _settings(data, port)
        for minutes, result in ((0, WRONG), (5, WRONG), (10, WRONG), (15, WELL), (80, WELL), (90, WELL)):
            at(timedelta(minutes=minutes))
            look_and_send(data, [result, DRILL])
    weekly, wrong, over = box.mails
    assert "1 checks not well" in weekly["Subject"] and DRILL.message in weekly.get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert "CRITICAL: backup" in wrong["Subject"] and wrong["Auto-Submitted"] == "auto-generated"
    text = wrong.get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert "the last one failed: study (UID) é" in text and "pacs backup run" in text and "alerts.md#backup" in text
    assert "well again: backup" in over["Subject"]
    assert box.envelopes[0].rcpt_tos == ["it@hospital.example", "b@hospital.example"]
    assert len({each["Message-ID"] for each in box.mails}) == 3
    assert Spool(data).waiting("mail") == []


def test_a_server_that_is_away_loses_nothing(data: Path, at: Callable[[timedelta], None]) -> None:
    box = Box()
    with mail_server(box) as port:
        _settings(data, port)  # nobody is there any more
    for minutes in (0, 5, 10):
        at(timedelta(minutes=minutes))
        assert "127.0.0.1, port" in _why(look_and_send(data, [WRONG]))
    state = Spool(data).state().ways["mail"]
    assert len(Spool(data).waiting("mail")) == 2 and state.failed_since is not None and "refused" in state.error
    with mail_server(box) as port:
        _settings(data, port)
        at(timedelta(minutes=15))
        assert look_and_send(data, [WRONG]) == [Sent("mail", 2)]
    assert ["this week" in each["Subject"] for each in box.mails] == [True, False]
    assert Spool(data).state().ways["mail"].error == "" and Spool(data).state().ways["mail"].sent_at is not None


def test_one_that_is_refused_does_not_hold_up_the_others(data: Path, at: Callable[[timedelta], None]) -> None:
    box = Box()
    box.refuses = "this week"
    with mail_server(box) as port:
        _settings(data, port)
        for minutes in (0, 5):
            at(timedelta(minutes=minutes))
            assert "no such thing here" in _why(look_and_send(data, [WRONG]))
        assert [each["Subject"].partition("] ")[2] for each in box.mails] == ["CRITICAL: backup"]
        assert len(Spool(data).waiting("mail")) == 1
        at(timedelta(days=20))  # and is not kept for ever
        assert _why(look_and_send(data, [WELL]))
        box.refuses = ""


def test_only_so_many_wait(data: Path) -> None:
    spool, way = Spool(data), MailWay(data, _settings(data, 25))
    with spool.alone():
        made = [spool.add(way, Alert("test", clock.now())) for _number in range(KEPT_MAX + 3)]
    assert spool.waiting("mail") == made[3:]


def test_what_is_known_may_be_lost(data: Path, at: Callable[[timedelta], None]) -> None:
    box = Box()
    with mail_server(box) as port:
        _settings(data, port)
        look_and_send(data, [WELL])
        (data / "alerts" / "state.json").write_text("{")
        at(timedelta(minutes=5))
        look_and_send(data, [WELL])
    assert len(box.mails) == 2  # told again, not never


def test_a_state_disk_that_cannot_be_written_to_is_told_of_once(data: Path, at: Callable[[timedelta], None]) -> None:
    box = Box()
    (data / "alerts").write_text("no folder can be here")
    (data / "run").mkdir()
    with mail_server(box) as port:
        _settings(data, port)
        for minutes in (0, 5, 10, 15):
            at(timedelta(minutes=minutes))
            assert _why(look_and_send(data, [WRONG])) == ""
    assert [each["Subject"].partition("] ")[2] for each in box.mails] == [
        "this week: 1 checks not well", "CRITICAL: backup",
    ]  # fmt: skip
    (data / "alerts").unlink()  # the disk is back
    with mail_server(box) as port:
        _settings(data, port)
        at(timedelta(minutes=20))
        look_and_send(data, [WRONG])
    assert len(box.mails) == 2 and (data / "alerts" / "state.json").exists()


def test_what_was_sent_and_cannot_be_removed_is_not_sent_again(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_words: object) -> None:
        raise OSError(errno.EROFS, f"{path.name}: the disk is read-only")

    box = Box()
    (data / "run").mkdir()
    with mail_server(box) as port:
        _settings(data, port)
        with monkeypatch.context() as turned_read_only:
            turned_read_only.setattr(Path, "unlink", refuse)
            assert look_and_send(data, [WELL]) == [Sent("mail", 1)]
        assert look_and_send(data, [WELL]) == [Sent("mail", 0)]
    assert len(box.mails) == 1 and len(list((data / "alerts").glob("*.mail"))) == 1


def test_what_is_held_is_not_told_until_then(data: Path, at: Callable[[timedelta], None]) -> None:
    box = Box()
    with mail_server(box) as port:
        _settings(data, port)
        hold(data, "backup", 1)
        for hours in (0, 1, 23, 25):
            at(timedelta(hours=hours))
            look_and_send(data, [WRONG])
    assert [each["Subject"].partition("] ")[2] for each in box.mails][1:] == ["CRITICAL: backup"]
    assert Spool(data).state().held == {}


class Hook(BaseHTTPRequestHandler):
    """An HTTP server that keeps what it is asked."""

    def _answer(self) -> None:
        server = cast(HookServer, self.server)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.asked.append((self.command, self.path, dict(self.headers), body))
        self.send_response(server.answers)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = _answer  # noqa: N815 (the library's)

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


class HookServer(ThreadingHTTPServer):
    answers = 200

    def __init__(self, certificate: Certificate | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Hook)
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        if certificate is not None:
            self.socket = _context(certificate).wrap_socket(self.socket, server_side=True)

    def __enter__(self) -> HookServer:
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self.thread.start()
        return self

    def __exit__(self, *_words: object) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


def test_a_webhook_is_signed_json_over_tls(
    data: Path, certificate: Certificate, at: Callable[[timedelta], None]
) -> None:
    signed_by = certificate.certificate.read_bytes()
    with HookServer(certificate) as server:
        url = f"https://127.0.0.1:{server.server_port}/in?token=1"
        alert_settings.keep(data, "webhook", Webhook(url))
        assert "certificate" in _why(send_test(data)) and server.asked == []  # nobody vouches for it
        alert_settings.keep(data, "webhook", Webhook(url), signed_by)
        for minutes in (0, 5, 10):
            at(timedelta(minutes=minutes))
            look_and_send(data, [WRONG, DRILL])
        for minutes in (15, 80):
            at(timedelta(minutes=minutes))
            look_and_send(data, [WELL, DRILL])
        secret = webhook_secret(data, Webhook(url))
    told = [json.loads(body) for _method, _path, _headers, body in server.asked]
    assert [each["kind"] for each in told] == ["weekly", "alert", "recovery"]
    assert {(method, path) for method, path, *_rest in server.asked} == {("POST", "/in?token=1")}
    (wrong,) = told[1]["checks"]
    assert wrong["name"] == "backup" and "(UID)" in wrong["message"] and wrong["page"].endswith("alerts.md#backup")
    assert told[1]["severity"] == "critical" and "CRITICAL: backup" in told[1]["text"]
    assert len({each["id"] for each in told}) == 3
    for _method, _path, headers, body in server.asked:
        assert headers["X-PACS-Signature"] == f"sha256={signature(secret, headers['X-PACS-Timestamp'], body)}"
    assert webhook_secret(data, Webhook(url, 2)) != secret == webhook_secret(data, Webhook("https://other/"))


def test_a_webhook_that_refuses_or_sends_elsewhere(data: Path, at: Callable[[timedelta], None]) -> None:
    with HookServer() as server:
        alert_settings.keep(data, "webhook", Webhook(f"http://127.0.0.1:{server.server_port}/secret-path"))
        for answers, expected in ((404, "refused it with 404"), (302, "answered with 302"), (503, "answered with 503")):
            server.answers = answers
            error = _why(look_and_send(data, [WELL]))
            assert expected in error and "secret-path" not in error
        assert len(Spool(data).waiting("webhook")) == 1 and {path for _m, path, *_r in server.asked} == {"/secret-path"}
        server.answers = 204
        assert look_and_send(data, [WELL]) == [Sent("webhook", 1)]
        assert len({json.loads(body)["id"] for *_rest, body in server.asked}) == 1, "the same one, each time"


class SyslogReceiver:
    """A syslog server on a free port: of each connection all that came."""

    def __init__(self, certificate: Certificate | None) -> None:
        self.came: list[bytes] = []
        receiver = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                receiver.came.append(self.rfile.read())

        class Server(socketserver.ThreadingTCPServer):
            def get_request(self) -> tuple[Any, Any]:
                connection, peer = super().get_request()
                if certificate is None:
                    return connection, peer
                return _context(certificate).wrap_socket(connection, server_side=True), peer

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    def __enter__(self) -> SyslogReceiver:
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()
        return self

    def __exit__(self, *_words: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @property
    def messages(self) -> list[str]:
        """The messages, their frames taken off (RFC 6587 3.4.1)."""
        found, left = [], b"".join(self.came)
        while left:
            length, _, rest = left.partition(b" ")
            found.append(rest[: int(length)].decode())
            left = rest[int(length) :]
        return found


_RFC5424 = re.compile(
    r"<(\d+)>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (\S+) pacs (\d+) (\w+) \[pacs@32473 ([^\]]*)\] \ufeff(.*)",
    re.DOTALL,
)


@pytest.mark.parametrize("transport", ["tls", "tcp"])
def test_syslog(data: Path, certificate: Certificate, at: Callable[[timedelta], None], transport: Any) -> None:
    forged = replace(WRONG, message="first\n<8>1 forged", hint='"]\x00')
    with SyslogReceiver(certificate if transport == "tls" else None) as server:
        value = Syslog("127.0.0.1", transport, server.port)
        if transport == "tls":
            alert_settings.keep(data, "syslog", value)
            assert "certificate" in _why(send_test(data).copy()).lower()
        alert_settings.keep(data, "syslog", value, certificate.certificate.read_bytes())
        for minutes, result in ((0, forged), (5, forged), (15, WELL), (80, WELL)):
            at(timedelta(minutes=minutes))
            assert _why(look_and_send(data, [result, DRILL])) == ""
    found = [_RFC5424.fullmatch(each) for each in server.messages]
    assert all(found) and len(found) == 3, server.messages
    weekly, wrong, over = [each for each in found if each is not None]
    assert (weekly[1], weekly[5]) == ("30", "weekly") and "not well" in weekly[7]
    assert (wrong[1], wrong[5], wrong[6]) == ("26", "alert", 'check="backup" severity="critical"')
    assert wrong[7].startswith("backup: first <8>1 forged") and wrong[2] == "2026-11-22T08:05:00.000000Z"
    assert (over[1], over[5]) == ("29", "recovery") and "well again" in over[7]


def test_syslog_that_is_away_loses_nothing_and_udp_comes(data: Path) -> None:
    with SyslogReceiver(None) as server:
        pass
    alert_settings.keep(data, "syslog", Syslog("127.0.0.1", "tcp", server.port))
    assert "refused" in _why(look_and_send(data, [WELL])) and len(Spool(data).waiting("syslog")) == 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(10)
        alert_settings.keep(data, "syslog", Syslog("127.0.0.1", "udp", listening.getsockname()[1]))
        assert look_and_send(data, [WELL]) == [Sent("syslog", 1)]
        assert _RFC5424.fullmatch(listening.recv(65536).decode())


def test_the_sign_of_life_stops_when_alerts_do_not_go_out(data: Path, at: Callable[[timedelta], None]) -> None:
    box = Box()
    with HookServer() as server, mail_server(box) as port:
        _settings(data, port)
        url = f"http://127.0.0.1:{server.server_port}/ping/1"
        alert_settings.keep(data, "heartbeat", Heartbeat(url, "dead@hospital.example"))
        for hours in (0, 1, 25):
            at(timedelta(hours=hours))
            assert _why(look_and_send(data, [WELL])) == ""
        assert [(method, path) for method, path, *_rest in server.asked] == [("GET", "/ping/1")] * 3
        alive = [each for each in box.envelopes if each.rcpt_tos == ["dead@hospital.example"]]
        assert len(alive) == 2, "once a day"
        box.refuses = "CRITICAL"
        for hours in (26, 27, 29):
            at(timedelta(hours=hours))
            why = _why(look_and_send(data, [WRONG]))
        assert "kept back" in why and len(server.asked) == 5
        server.answers = 500
        box.refuses = ""
        at(timedelta(hours=30))
        assert "answered with 500" in _why(look_and_send(data, [WRONG]))


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_over_tls_with_a_password(data: Path, certificate: Certificate, tls: str) -> None:
    box, asked = Box(), []

    def login(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        assert isinstance(given, LoginPassword)
        asked.append(given.password)
        return AuthResult(success=given.password == b"secret word", handled=False)

    words: dict[str, Any] = {"authenticator": login}
    if tls == "tls":
        words |= {"ssl_context": _context(certificate), "auth_require_tls": False}
    else:
        words |= {"tls_context": _context(certificate), "require_starttls": True, "auth_required": True}
    with ExitStack() as stack:
        port = stack.enter_context(mail_server(box, **words))
        wanted = _settings(data, port, tls=tls, user="pacs")
        keep(data, wanted, "secret word\n", None)
        settings = mail_settings(data)
        assert settings == wanted
        assert "certificate" in _why(send_test(data))  # nobody vouches for it
        assert asked == [] and Spool(data).waiting("mail") == []
        keep(data, wanted, None, certificate.certificate.read_bytes())
        assert _why(send_test(data)) == ""
        assert "test" in box.mails[0]["Subject"] and asked[-1] == b"secret word"
        keep(data, wanted, "another", None)
        assert "port" in _why(send_test(data))
        assert len(box.mails) == 1
    assert password_file(data).stat().st_mode & 0o777 == 0o600
    assert re.search("STARTTLS|refused|Connection", _why(send_test(data)))  # and without TLS no password goes out


def test_starttls_that_is_not_offered_is_no_way_into_the_clear(data: Path) -> None:
    box = Box()
    with mail_server(box) as port:
        _settings(data, port, tls="starttls")
        assert "STARTTLS" in _why(send_test(data))
    assert box.mails == []


def test_the_commands(run: Run, new_instance: Callable[[], Path]) -> None:  # noqa: F811 (a fixture)
    data, box = new_instance(), Box()

    def pacs(*words: str) -> Outcome:
        return run("--data", str(data), *words)

    assert pacs("alert", "configured").code == pacs("alert", "run").code == 9
    with mail_server(box) as port, HookServer() as hook:
        words = ("--host", "127.0.0.1", "--port", str(port), "--tls", "none", "--from", "pacs@hospital.example")
        assert pacs("mail", "set", *words, "--to", "nobody").code == 2
        assert "in clear" in pacs("mail", "set", *words, "--to", "a@b.example", "--user", "x").err
        assert pacs("alert", "heartbeat", "set", "--mail", "a@b.example").code == 2, "no mails can be sent yet"
        assert pacs("mail", "set", *words, "--to", "a@b.example").code == 0
        assert "has taken a mail to a@b.example" in pacs("mail", "test").out
        for wrong in ("ftp://x/", "https://", "https://user@x/", "x"):
            assert pacs("alert", "webhook", "set", wrong).code == 2
        assert pacs("alert", "syslog", "set", "host", "--transport", "pigeon").code == 2
        assert "in clear" in pacs("alert", "webhook", "set", f"http://127.0.0.1:{hook.server_port}/hook").out
        secret = pacs("alert", "webhook", "secret").out.strip()
        pacs("alert", "heartbeat", "set", f"http://127.0.0.1:{hook.server_port}/alive")
        assert pacs("alert", "test").out.startswith("mail: taken\nwebhook: taken\nheartbeat: taken\n")
        assert pacs("alert", "run").code == 0
        shown = json.loads(pacs("alert", "show", "--json").out)
        assert "a@b.example; 0 wait" in shown["mail"] and shown["webhook"].startswith("127.0.0.1; 0 wait")
        assert secret not in str(shown) and "hook" not in shown["webhook"]
        assert pacs("alert", "hold", "nonsense").code == 9
        pacs("alert", "hold", "backup", "--days", "2")
        assert "backup until" in pacs("alert", "show").out
        _method, _path, headers, body = hook.asked[0]
        assert headers["X-PACS-Signature"] == (
            f"sha256={signature(secret.encode(), headers['X-PACS-Timestamp'], body)}"
        )  # fmt: skip
        pacs("alert", "webhook", "set", f"http://127.0.0.1:{hook.server_port}/hook", "--new-secret")
        assert pacs("alert", "webhook", "secret").out.strip() != secret
    assert [each["Subject"].partition("] ")[2].partition(":")[0] for each in box.mails] == ["test", "test", "this week"]
    assert pacs("mail", "test").code == pacs("alert", "test").code == 4
    for way in ("webhook", "heartbeat"):
        assert pacs("alert", way, "off").code == 0
    assert pacs("mail", "off").code == 0 and pacs("alert", "configured").code == 9


def test_that_postgresql_is_down_is_told_once_and_alone(
    new_dev: Callable[..., Dev],
    at: Callable[[timedelta], None],
    run: Run,  # noqa: F811 (a fixture)
) -> None:
    dev, box = new_dev(**QUICK).start(), Box()
    with mail_server(box) as port:
        _settings(dev.data, port)
        look_and_send(dev.data, results_of(dev.data))
        dev.stop()  # PostgreSQL with it
        results = results_of(dev.data)
        found = {each.name: each.severity for each in results}
        assert set(found) == set(CHECKS)
        assert found["database"] == "critical" and found["backup"] == found["volumes"] == "unknown"
        assert found["memory"] in ("ok", "warning") and found["certificates"] == "ok"
        for minutes in (5, 10, 15, 20):
            at(timedelta(minutes=minutes))
            look_and_send(dev.data, results)
        told = [each["Subject"].partition("] ")[2] for each in box.mails][1:]
        assert told == ["CRITICAL: database"]
        (text,) = (each.get_payload(decode=True).decode() for each in box.mails[1:])  # type: ignore[union-attr]
        assert "does not answer" in text and "systemctl restart postgresql" in text
        nagios = run("--data", dev.data, "check", "--nagios")
        assert nagios.code == 2 and nagios.out.startswith("PACS CRITICAL - database: ")


def test_the_pages_are_true(short_folder: Path) -> None:
    box = Box()
    with ExitStack() as stack:
        on, port = stack.enter_context(machine(short_folder)), stack.enter_context(mail_server(box))
        hook, logs = stack.enter_context(HookServer()), stack.enter_context(SyslogReceiver(None))
        on.start(**QUICK)

        def receivers() -> None:
            url = f"http://127.0.0.1:{hook.server_port}"
            on.variables |= {"WEBHOOK": f"{url}/in", "HEARTBEAT": f"{url}/ping"}
            on.variables |= {"SYSLOG": "127.0.0.1", "SYSLOG_PORT": str(logs.port)}

        def a_mail_server() -> None:
            on.variables |= {"MAIL_SERVER": "127.0.0.1", "MAIL_PORT": str(port)}

        printed = on.follow("mail.md", {"a_mail_server": a_mail_server})
        tried = on.follow("alerts.md", {"receivers": receivers})
    assert any("webhook: taken\nsyslog: taken\nheartbeat: taken\n" in each for each in tried), tried
    assert sorted(path for _method, path, *_rest in hook.asked) == ["/in", "/ping"] and len(logs.messages) == 1
    assert "has taken a mail to it@hospital.example" in printed[0] and "waiting" in printed[1]
    assert len(box.mails) == 1
