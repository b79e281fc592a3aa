"""Mails of an instance, taken by a real mail server: in clear, with STARTTLS and a password, over TLS."""

from __future__ import annotations

import email
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword

from pacs import clock
from pacs.checks.check import Result
from pacs.jobs.mail import look_and_send, send_test
from pacs.jobs.mail_settings import MailSettings, keep, mail_settings, password_file
from pacs.jobs.mail_spool import KEPT_MAX, MailFailed, Spool
from tests.certificates import Certificate, make_certificate
from tests.fix_instance import Dev
from tests.pages import machine
from tests.restoring import QUICK

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


def _settings(port: int, **words: Any) -> MailSettings:
    return MailSettings("127.0.0.1", ("it@hospital.example", "b@hospital.example"), "pacs@hospital.example", port=port,
                        **{"tls": "none", **words})  # fmt: skip


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
        settings = _settings(port)
        for minutes, result in ((0, WRONG), (5, WRONG), (10, WRONG), (15, WELL), (80, WELL), (90, WELL)):
            at(timedelta(minutes=minutes))
            look_and_send(data, settings, [result, DRILL])
    weekly, wrong, over = box.mails
    assert "1 checks not well" in weekly["Subject"] and DRILL.message in weekly.get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert "CRITICAL: backup" in wrong["Subject"] and wrong["Auto-Submitted"] == "auto-generated"
    text = wrong.get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert "the last one failed: study (UID) é" in text and "pacs backup run" in text
    assert "well again: backup" in over["Subject"]
    assert box.envelopes[0].rcpt_tos == ["it@hospital.example", "b@hospital.example"]
    assert len({each["Message-ID"] for each in box.mails}) == 3
    assert Spool(data).waiting() == []


def test_a_server_that_is_away_loses_nothing(data: Path, at: Callable[[timedelta], None]) -> None:
    box = Box()
    with mail_server(box) as port:
        pass  # nobody is there any more
    for minutes in (0, 5, 10):
        at(timedelta(minutes=minutes))
        with pytest.raises(MailFailed, match="127.0.0.1, port"):
            look_and_send(data, _settings(port), [WRONG])
    state = Spool(data).state()
    assert len(Spool(data).waiting()) == 2 and state.failed_since is not None and "refused" in state.error
    with mail_server(box) as port:
        at(timedelta(minutes=15))
        assert look_and_send(data, _settings(port), [WRONG]) == 2
    assert ["this week" in each["Subject"] for each in box.mails] == [True, False]
    assert Spool(data).state().error == "" and Spool(data).state().sent_at is not None


def test_one_that_is_refused_does_not_hold_up_the_others(data: Path, at: Callable[[timedelta], None]) -> None:
    box = Box()
    box.refuses = "this week"
    with mail_server(box) as port:
        for minutes in (0, 5):
            at(timedelta(minutes=minutes))
            with pytest.raises(MailFailed, match="no such thing here"):
                look_and_send(data, _settings(port), [WRONG])
        assert [each["Subject"].partition("] ")[2] for each in box.mails] == ["CRITICAL: backup"]
        assert len(Spool(data).waiting()) == 1
        at(timedelta(days=20))  # and is not kept for ever
        with pytest.raises(MailFailed):
            look_and_send(data, _settings(port), [WELL])
        box.refuses = ""


def test_only_so_many_wait(data: Path) -> None:
    spool = Spool(data)
    with spool.alone():
        for number in range(KEPT_MAX + 3):
            spool.add(_settings(25), f"number {number}", "text")
    waiting = spool.waiting()
    assert len(waiting) == KEPT_MAX and b"number 3\r\n" in waiting[0].read_bytes()


def test_what_is_known_may_be_lost(data: Path, at: Callable[[timedelta], None]) -> None:
    box = Box()
    with mail_server(box) as port:
        look_and_send(data, _settings(port), [WELL])
        (data / "mail" / "state.json").write_text("{")
        at(timedelta(minutes=5))
        look_and_send(data, _settings(port), [WELL])
    assert len(box.mails) == 2  # told again, not never


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_over_tls_with_a_password(data: Path, certificate: Certificate, tls: str) -> None:
    box, asked = Box(), []

    def login(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        assert isinstance(given, LoginPassword)
        asked.append(given.password)
        return AuthResult(success=given.password == b"secret word")

    words: dict[str, Any] = {"authenticator": login}
    if tls == "tls":
        words |= {"ssl_context": _context(certificate), "auth_require_tls": False}
    else:
        words |= {"tls_context": _context(certificate), "require_starttls": True, "auth_required": True}
    with ExitStack() as stack:
        port = stack.enter_context(mail_server(box, **words))
        wanted = _settings(port, tls=tls, user="pacs")
        keep(data, wanted, "secret word\n", None)
        settings = mail_settings(data)
        assert settings == wanted
        with pytest.raises(MailFailed, match="certificate"):  # nobody vouches for it
            send_test(data, settings)
        assert asked == [] and Spool(data).waiting() == []
        keep(data, wanted, None, certificate.certificate.read_bytes())
        send_test(data, settings)
        assert "test" in box.mails[0]["Subject"] and asked[-1] == b"secret word"
        keep(data, wanted, "another", None)
        with pytest.raises(MailFailed, match="port"):
            send_test(data, settings)
        assert len(box.mails) == 1
    assert password_file(data).stat().st_mode & 0o777 == 0o600
    with pytest.raises(MailFailed, match="STARTTLS|refused|Connection"):  # and without TLS no password goes out
        send_test(data, settings)


def test_starttls_that_is_not_offered_is_no_way_into_the_clear(data: Path) -> None:
    box = Box()
    with mail_server(box) as port, pytest.raises(MailFailed, match="STARTTLS"):
        send_test(data, _settings(port, tls="starttls"))
    assert box.mails == []


def test_the_commands(new_dev: Callable[..., Dev]) -> None:
    dev, box = new_dev(**QUICK).start(), Box()
    assert dev.pacs("mail", "configured", check=False).returncode == 9
    with mail_server(box) as port:
        words = ("--host", "127.0.0.1", "--port", str(port), "--tls", "none", "--from", "pacs@hospital.example")
        assert dev.pacs("mail", "set", *words, "--to", "nobody", check=False).returncode == 2
        assert "in clear" in dev.pacs("mail", "set", *words, "--to", "a@b.example", "--user", "x", check=False).stderr
        dev.pacs("mail", "set", *words, "--to", "a@b.example")
        assert "has taken a mail to a@b.example" in dev.pacs("mail", "test").stdout
        dev.pacs("mail", "run")
        assert "waiting                      0" in dev.pacs("mail", "show").stdout
    assert ["test" in each["Subject"] for each in box.mails] == [True, False]
    assert dev.pacs("mail", "test", check=False).returncode == 4
    dev.stop()
    done = dev.pacs("mail", "run", check=False)  # without its database, too, it looks and tells
    assert done.returncode in (0, 4), done.stderr
    found = {each["name"] for each in json.loads(dev.pacs("check", "--json", check=False).stdout)}
    assert found == {"instance"}
    dev.pacs("mail", "off")
    assert dev.pacs("mail", "configured", check=False).returncode == 9


def test_the_page_is_true(short_folder: Path) -> None:
    box = Box()
    with machine(short_folder) as on, mail_server(box) as port:
        on.start(**QUICK)

        def a_mail_server() -> None:
            on.variables |= {"MAIL_SERVER": "127.0.0.1", "MAIL_PORT": str(port)}

        printed = on.follow("mail.md", {"a_mail_server": a_mail_server})
    assert "has taken a mail to it@hospital.example" in printed[0] and "waiting" in printed[1]
    assert len(box.mails) == 1
