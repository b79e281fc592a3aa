"""Who acts, from what the kernel and sudo say."""

from __future__ import annotations

import os
import pwd

from pacs.storage.acting import actor_of

ROOT = pwd.getpwuid(0).pw_name
UNSET = "4294967295"
SESSION, UNIT = "0::/user.slice/user-2000.slice/session-3.scope", "0::/system.slice/system-pacs.slice/pacs@1.service\n"


def test_the_login_stays_behind_sudo() -> None:
    assert actor_of("0", SESSION, {"SUDO_USER": "other"}, 1, "pts/0")["login"] == ROOT
    assert actor_of(UNSET, SESSION, {"SUDO_USER": "anna"}, 0)["login"] == "anna"
    assert actor_of("", "", {}, 0)["login"] == pwd.getpwuid(os.getuid()).pw_name
    assert actor_of("3999999998", SESSION, {}, 0)["login"] == "3999999998", "a login that is known no more"


def test_a_service_is_its_unit_and_a_persons_command_below_one_is_not() -> None:
    assert actor_of(UNSET, UNIT, {}, 2100) == {"unit": "pacs@1.service"}
    assert "unit" not in actor_of("0", UNIT, {}, 0)
    assert "unit" not in actor_of(UNSET, UNIT, {"SUDO_USER": "anna"}, 0)
