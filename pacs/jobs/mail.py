"""Mails to those who look after the appliance: what is wrong, that it is well again, and once a week how it is.

    what the checks say → what of it is to be told now (model/mail_matters) → a mail, written down → the state, written
    down → what waits is sent

Whoever is killed in between tells once more, and never not at all. No patient's data is in any: a mail goes through
many hands.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from pacs import __version__, clock
from pacs.checks.check import ORDER, Result
from pacs.errors import PacsError
from pacs.jobs.mail_settings import MailSettings
from pacs.jobs.mail_spool import Spool
from pacs.model.mail_matters import Matter, to_tell, without_uids

WEEKLY = timedelta(days=7)
_END = "\nSent by the appliance {host}, version {version}. What is wrong is told once a day until it is over.\n"


def look_and_send(data: Path, settings: MailSettings, results: Sequence[Result]) -> int:
    """Tell what is to be told, send what waits; return how many mails went. Raise MailFailed if they cannot."""
    spool, now = Spool(data), clock.now()
    with spool.alone():
        state = spool.state()
        seen = [Matter(each.name, each.severity, each.message, each.hint) for each in results]
        told, state.matters = to_tell(seen, state.matters, now)
        if told:
            spool.add(settings, *_of(told))
        if state.weekly_at is None or not timedelta(0) <= now - state.weekly_at < WEEKLY:
            spool.add(settings, *_weekly(results))
            state.weekly_at = now
        spool.put_state(state)
        return _send(spool, settings)


def _send(spool: Spool, settings: MailSettings) -> int:
    state = spool.state()
    try:
        sent = spool.send(settings)
    except PacsError as error:
        spool.drop_old()
        state.error, state.failed_since = str(error), state.failed_since or clock.now()
        spool.put_state(state)
        raise
    if sent or state.error:
        state.error, state.failed_since, state.sent_at = "", None, clock.now() if sent else state.sent_at
        spool.put_state(state)
    return sent


def send_test(data: Path, settings: MailSettings) -> None:
    """Send a mail that says that mails arrive; what waits goes with it. Raise MailFailed with the reason."""
    spool = Spool(data)
    with spool.alone():
        text = "Mails of this appliance arrive. What is wrong with it will be told here.\n"
        path = spool.add(settings, f"[PACS {_host()}] test", text + _end())
        try:
            _send(spool, settings)
        finally:
            path.unlink(missing_ok=True)  # who asked has the answer: it is not tried again


def _of(told: Sequence[Matter]) -> tuple[str, str]:
    wrong = [each for each in told if not each.is_over]
    over = [each for each in told if each.is_over]
    names = ", ".join(each.name for each in wrong or over)
    worst = max((each.severity for each in wrong), key=ORDER.index, default="ok")
    lines = [f"{each.severity.upper()} {each.name}: {each.message}\n    {each.hint}\n" for each in wrong]
    lines += [f"Well again: {each.name}: {each.message}\n" for each in over]
    subject = f"[PACS {_host()}] {worst.upper()}: {names}" if wrong else f"[PACS {_host()}] well again: {names}"
    return subject, "\n".join(lines) + _end()


def _weekly(results: Sequence[Result]) -> tuple[str, str]:
    drill = next((each for each in results if each.name == "drill"), None)
    proven = without_uids(drill.message) if drill else "the drill cannot be looked at"
    bad = [each for each in results if each.severity != "ok"]
    subject = f"[PACS {_host()}] this week: {f'{len(bad)} checks not well' if bad else 'all is well'}"
    lines = [f"{proven}.\n"]
    lines += [f"{each.severity.upper():9}{each.name:12}{without_uids(each.message)}" for each in results]
    return subject, "\n".join(lines) + "\n" + _end()


def _host() -> str:
    return socket.gethostname()


def _end() -> str:
    return _END.format(host=_host(), version=__version__)
