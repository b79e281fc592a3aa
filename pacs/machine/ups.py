"""The UPS: NUT's configuration made of the machine's settings, and the charge watched while there is no power.

Who shuts down is NUT (upsmon): at the UPS's own warning, when a UPS without power does not answer any more, or when
`watch` says so. Then systemd ends associations, database and mounts in its order; and when nothing writes any more,
NUT's hook has the UPS cut the load, so that the machine starts with the power.
"""

from __future__ import annotations

import logging
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Mapping

from pacs.errors import UsageError
from pacs.machine.commands import MachineError, run

log = logging.getLogger(__name__)

_NAME = "ups"
_PORT = 3493
_DRIVER, _SERVER, _MONITOR, _EVENTS = (
    f"nut-driver@{_NAME}.service", "nut-server.service", "nut-monitor.service", "pacs-ups.path",
)  # fmt: skip
#: Every unit that there may be.
UNITS = (_EVENTS, _DRIVER, _SERVER, _MONITOR)
_HEAD = "# Written by `pacs machine` from the settings (ups, ups_server and others); change it with those.\n"
#: What pacs-ups-event is called for; all of it is logged.
_EVENTS_TOLD = ("ONLINE", "ONBATT", "LOWBATT", "FSD", "COMMOK", "COMMBAD", "SHUTDOWN", "REPLBATT", "NOCOMM")
_POLL_S = 5.0
_USUAL_DRIVER = "usbhid-ups auto"

Ask = Callable[[str], Mapping[str, str]]


def require_whole(values: Mapping[str, str]) -> None:
    """Raise UsageError if values that are good each alone name no UPS together."""
    if values["ups"] == "remote" and not (values["ups_server"] and values["ups_user"] and values["ups_password"]):
        raise UsageError("ups: a remote one needs ups_server, ups_user and ups_password.")


def named(values: Mapping[str, str]) -> str:
    """The UPS as NUT names it; empty if there is none."""
    return {"local": f"{_NAME}@localhost", "remote": values["ups_server"]}.get(values["ups"], "")


def server_of(values: Mapping[str, str]) -> tuple[str, int] | None:
    """Host and port of another machine's NUT; None if none is asked."""
    if values["ups"] != "remote":
        return None
    place = values["ups_server"].partition("@")[2]
    host, _, port = place.rpartition(":") if re.search(r"[^:]:\d+$|\]:\d+$", place) else (place, "", "")
    return host.strip("[]"), int(port or _PORT)


def units(values: Mapping[str, str]) -> tuple[str, ...]:
    """The units that run with these settings."""
    return {"local": UNITS, "remote": (_EVENTS, _MONITOR)}.get(values["ups"], ())


def files(values: Mapping[str, str], users_before: str, find: Callable[[], str]) -> dict[str, str | None]:
    """NUT's files below /etc/nut; None: not to be there. find: which driver a UPS on USB wants.

    users_before: upsd.users as it is. The password in it is made on the machine, and stays as long as the file does.
    """
    kind = values["ups"]
    found: dict[str, str | None] = dict.fromkeys(("configured", "ups.conf", "upsd.conf", "upsd.users", "upsmon.conf"))
    found["nut.conf"] = _HEAD + f"MODE={ {'local': 'standalone', 'remote': 'netclient'}.get(kind, 'none') }\n"
    if kind == "none":
        return found
    found["configured"] = _HEAD
    login = f"{values['ups_user']} {values['ups_password']} secondary"
    if kind == "local":
        before = re.search(r"^\s*password = (\w+)$", users_before, re.M)
        password = before[1] if before else secrets.token_hex(16)
        driver, _, port = (values["ups_driver"] or find()).partition(" ")
        found["ups.conf"] = f"{_HEAD}maxretry = 3\n[{_NAME}]\n\tdriver = {driver}\n\tport = {port}\n"
        found["upsd.conf"] = f"{_HEAD}LISTEN 127.0.0.1 {_PORT}\n"
        found["upsd.users"] = f"{_HEAD}[pacs]\n\tpassword = {password}\n\tupsmon primary\n"
        login = f"pacs {password} primary"
    found["upsmon.conf"] = _upsmon(f"MONITOR {named(values)} 1 {login}")
    return found


def _upsmon(monitor: str) -> str:
    lines = [
        monitor,
        "MINSUPPLIES 1",
        'SHUTDOWNCMD "/usr/bin/systemctl poweroff"',
        "POWERDOWNFLAG /run/killpower",
        "NOTIFYCMD /usr/local/libexec/pacs-ups-event",
        *(f"NOTIFYFLAG {event} SYSLOG+EXEC" for event in _EVENTS_TOLD),
        "POLLFREQ 5",
        "POLLFREQALERT 5",
        "HOSTSYNC 15",
        "DEADTIME 15",
        "FINALDELAY 5",
        "RUN_AS_USER nut",
    ]
    return _HEAD + "".join(f"{line}\n" for line in lines)


def on_usb() -> str:
    """The driver and the port of the first UPS that is found on USB; the usual one if none is there just now."""
    try:
        return scanned(run("nut-scanner", "--quiet", "--usb_scan", accept=range(256)).stdout)
    except MachineError:
        return _USUAL_DRIVER


def scanned(said: str) -> str:
    """The first driver and port of what nut-scanner says."""
    values = dict(re.findall(r'^\s*(driver|port)\s*=\s*"?([\w./-]+)"?\s*(?:#.*)?$', said.partition("\n[")[0], re.M))
    return f"{values['driver']} {values.get('port', 'auto')}" if "driver" in values else _USUAL_DRIVER


def watch(name: str, shutdown_charge: int, ask: Ask | None = None, pause: Callable[[float], None] = time.sleep) -> bool:
    """As long as the UPS has no power: have NUT shut the machine down at that charge [%]. Whether it did.

    One that does not answer is waited for: NUT itself takes it for empty soon.
    """
    while True:
        values = (ask or _asked)(name)
        status = values.get("ups.status", "").split()
        if status and "OB" not in status:
            return False
        charge = _number(values.get("battery.charge", ""))
        if status and charge is not None and charge <= shutdown_charge:
            log.warning("the UPS has no power, and %.0f %% of charge are left: the machine shuts down", charge)
            run("upsmon", "-c", "fsd")
            return True
        pause(_POLL_S)


def _asked(name: str) -> Mapping[str, str]:
    try:
        said = subprocess.run(["upsc", name], capture_output=True, text=True, check=False, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
