"""Alerts to those who look after the appliance: what is wrong, that it is well again, and once a week how it is.

    what the checks say → what of it is to be told now (model/alerts) → a mail, a webhook's body, messages of syslog,
    written down → the state, written down → what waits is sent, each way for itself → the sign of life

Whoever is killed in between tells once more, and never not at all. No patient's data is in any: they go through many
hands. Nothing here asks the database: that it is down is told like all else.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pacs import clock
from pacs import settings as settings_table
from pacs.checks.check import Result
from pacs.errors import NotFound, PacsError, SettingsError
from pacs.jobs.alert_settings import Heartbeat, alert_settings
from pacs.jobs.alert_spool import Spool, State, WayState
from pacs.jobs.alert_way import Alert, AlertFailed, Way
from pacs.jobs.mail_settings import mail_settings
from pacs.jobs.mail_way import MailWay
from pacs.jobs.syslog_way import SyslogWay
from pacs.jobs.webhook import WebhookWay, ping
from pacs.model.alerts import AGAIN, Matter, to_tell, without_uids

log = logging.getLogger(__name__)

WEEKLY, ALIVE = timedelta(days=7), timedelta(days=1)
#: A way that fails for longer keeps back the sign of life: then somebody else notices.
SILENT_AFTER = timedelta(hours=1)


@dataclass(frozen=True)
class Sent:
    """How one way went."""

    way: str
    sent: int
    error: str = ""


def ways_of(data: Path) -> list[Way]:
    """Every way that is set. Raise SettingsError if settings cannot be used."""
    mail, others = mail_settings(data), alert_settings(data)
    found: list[Way] = [MailWay(data, mail)] if mail else []
    if others.webhook.url:
        found.append(WebhookWay(data, others.webhook))
    if others.syslog.host:
        found.append(SyslogWay(data, others.syslog))
    return found


def require_configured(data: Path) -> None:
    """Raise NotFound if nobody is told anything."""
    heartbeat = alert_settings(data).heartbeat
    if not ways_of(data) and not heartbeat.url:
        raise NotFound(
            "Nobody is told anything. `pacs mail set`, `pacs alert webhook set` or `pacs alert syslog set` says whom "
            "(docs/operate/alerts.md)."
        )


def look_and_send(data: Path, results: Sequence[Result]) -> list[Sent]:
    """Tell what is to be told, send what waits, give the sign of life; how each went. Raise AlertFailed if nothing can
    be written down."""
    spool, now, ways = Spool(data), clock.now(), ways_of(data)
    with spool.alone():
        state = spool.state()
        known = {each.name for each in ways} | {"heartbeat"}
        state.ways = {name: each for name, each in state.ways.items() if name in known}
        seen = [Matter(each.name, each.severity, each.message, each.hint) for each in results]
        told, state.matters = to_tell(seen, state.matters, now, _again(data), state.held)
        state.held = {name: until for name, until in state.held.items() if until > now}
        if told:
            _add(spool, ways, Alert("alert", now, tuple(told)))
        if ways and (state.weekly_at is None or not timedelta(0) <= now - state.weekly_at < WEEKLY):
            _add(spool, ways, _weekly(results))
            state.weekly_at = now
        heartbeat = alert_settings(data).heartbeat
        _say_alive_by_mail(spool, state, heartbeat)
        state.looked_at = now
        spool.put_state(state)
        sent = [_send(spool, way) for way in ways]
        if heartbeat.url:
            sent.append(_ping(spool, data, heartbeat))
        return sent


def send_test(data: Path, only: str = "") -> list[Sent]:
    """Send an alert that says that alerts arrive, each way; what waits goes with it. Nothing of it is tried again."""
    spool, ways = Spool(data), [each for each in ways_of(data) if only in ("", each.name)]
    with spool.alone():
        paths = [spool.add(way, Alert("test", clock.now())) for way in ways]
        try:
            found = [_send(spool, way) for way in ways]
        finally:
            for path in paths:
                path.unlink(missing_ok=True)  # who asked has the answer
        heartbeat = alert_settings(data).heartbeat
        if heartbeat.url and not only:
            found.append(_ping(spool, data, heartbeat))
        return found


def hold(data: Path, check: str, days: float) -> None:
    """Tell nothing of a check for so long; 0: tell again."""
    spool = Spool(data)
    with spool.alone():
        state = spool.state()
        state.held.pop(check, None)
        if days > 0:
            state.held[check] = clock.now() + timedelta(days=days)
        spool.put_state(state)


def _again(data: Path) -> timedelta:
    try:
        return timedelta(seconds=settings_table.load(data).alert_reminder_s)
    except SettingsError:  # which is one of the matters
        return AGAIN


def _add(spool: Spool, ways: Sequence[Way], alert: Alert) -> None:
    for way in ways:
        spool.add(way, alert)


def _send(spool: Spool, way: Way) -> Sent:
    state = spool.state()
    known = state.ways.setdefault(way.name, WayState())
    try:
        sent = spool.send(way)
    except PacsError as error:
        spool.drop_old(way.name)
        known.error, known.failed_since = str(error), known.failed_since or clock.now()
        spool.put_state(state)
        log.warning("alerts by %s do not go out: %s", way.name, error)
        return Sent(way.name, 0, str(error))
    if sent or known.error:
        known.error, known.failed_since, known.sent_at = "", None, clock.now() if sent else known.sent_at
        spool.put_state(state)
    return Sent(way.name, sent)


def _say_alive_by_mail(spool: Spool, state: State, heartbeat: Heartbeat) -> None:
    now, mail = clock.now(), mail_settings(spool.data)
    if not heartbeat.mail or mail is None or not _may_say_alive(state):
        return
    if state.alive_at is None or not timedelta(0) <= now - state.alive_at < ALIVE:
        spool.add(MailWay(spool.data, mail, (heartbeat.mail,)), Alert("alive", now))
        state.alive_at = now


def _ping(spool: Spool, data: Path, heartbeat: Heartbeat) -> Sent:
    state = spool.state()
    if not _may_say_alive(state):
        return Sent("heartbeat", 0, "kept back: an alert has not gone out for more than an hour.")
    known = state.ways.setdefault("heartbeat", WayState())
    try:
        ping(data, heartbeat)
    except AlertFailed as error:
        known.error, known.failed_since = str(error), known.failed_since or clock.now()
    else:
        known.error, known.failed_since, known.sent_at = "", None, clock.now()
    spool.put_state(state)
    return Sent("heartbeat", int(not known.error), known.error)


def _may_say_alive(state: State) -> bool:
    """Whether all goes on: that it was looked is a matter of being here; what was to be told must have gone out."""
    return not any(
        way.failed_since is not None and clock.now() - way.failed_since > SILENT_AFTER
        for name, way in state.ways.items() if name != "heartbeat"
    )  # fmt: skip


def _weekly(results: Sequence[Result]) -> Alert:
    drill = next((each for each in results if each.name == "drill"), None)
    proven = without_uids(drill.message) if drill else "the drill cannot be looked at"
    matters = tuple(Matter(each.name, each.severity, without_uids(each.message), each.hint) for each in results)
    return Alert("weekly", clock.now(), matters, proven)
