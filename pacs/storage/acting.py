"""Who acts: the person at the command line, or the service, as the kernel knows them.

The audit login user id (/proc/self/loginuid, set once when somebody logs in) stays through sudo and su; where the
kernel keeps none (some containers), it is who sudo says called it.
"""

from __future__ import annotations

import functools
import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path

_UNSET = 0xFFFFFFFF
_UNIT = re.compile(r"/([^/]+\.service)(?:/|$)")


@functools.cache
def actor() -> dict[str, str]:
    """Who this process acts for: {"unit"} or {"login", "as", "tty"}."""
    return actor_of(_read("/proc/self/loginuid"), _read("/proc/self/cgroup"), os.environ, os.geteuid(), _terminal())


def is_service() -> bool:
    """Whether this process is a unit's, and no person's command."""
    return "unit" in actor()


def actor_of(
    login_uid: str, cgroup: str, environment: Mapping[str, str], effective_uid: int, terminal: str = ""
) -> dict[str, str]:
    """The same from what the kernel and sudo say."""
    login = _login(login_uid.strip())
    unit = _UNIT.search(cgroup.strip().splitlines()[-1]) if cgroup.strip() else None
    if unit is not None and not login and "SUDO_USER" not in environment:
        return {"unit": unit[1]}
    found = {
        "login": login or environment.get("SUDO_USER", "") or _name(os.getuid()),
        "as": _name(effective_uid),
        "tty": terminal,
    }
    return {key: value for key, value in found.items() if value}


def _login(text: str) -> str:
    return _name(int(text)) if text.isdecimal() and int(text) != _UNSET else ""


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _read(path: str) -> str:
    try:
        return Path(path).read_text("ascii", "replace")
    except OSError:
        return ""


def _terminal() -> str:
    try:
        return os.ttyname(0).removeprefix("/dev/")
    except OSError:
        return ""
