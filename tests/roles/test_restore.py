"""Disaster recovery between two booted appliances, as root does it: owners, modes and units are the guest's own."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.faults.process import wait_for
from tests.roles.conftest import boot_first
from tests.roles.container import Container
from tests.roles.rootfs import REPOSITORY

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

_PLACE = "/srv/pacs/backup/repository"
_STORE = """
from tests.peer import RawObject, store
from tests.synthetic import ct_study
objects = [RawObject.of(each) for each in ct_study(88, 3)]
assert store(11112, objects, "RESTORER") == [0, 0, 0]
"""
_COMPARE = """
from tests.peer import RawObject, get, study_uid_of
from tests.synthetic import ct_study
objects = [RawObject.of(each) for each in ct_study(88, 3)]
context = (objects[0].sop_class_uid, objects[0].transfer_syntax_uid)
back = get(11112, [study_uid_of(objects[0])], [context], "RESTORER")
assert back == {each.sop_instance_uid: each for each in objects}
"""


def _python(on: Container, script: str) -> None:
    done = on.from_outside("env", f"PYTHONPATH={REPOSITORY}", sys.executable, "-c", script)
    assert done.returncode == 0, (
        done.stdout
        + done.stderr
        + on.run("pacs check || true; journalctl --no-pager -o cat -u 'pacs-receiver@*' | tail -n 30")
    )


def _newest_object_key(on: Container) -> int:
    points = json.loads(on.run("pacs backup points --json"))["outside"]
    return int(points[-1]["newest_object_key"]) if points else 0


def test_what_one_appliance_backed_up_another_serves(appliance: Container, spare: Container) -> None:
    appliance.run("pacs device add restorer --ae-title RESTORER --host 127.0.0.1 --port 11114")
    _python(appliance, _STORE)
    appliance.run(f"install -o pacs -g pacs -m 750 -d {_PLACE}")
    appliance.run(f"pacs backup repository add outside --place {_PLACE} --on-system-disk")
    key = re.findall(r"\b[0-9A-HJKMNP-TV-Z]{5}\b(?=-|$)", appliance.run("pacs backup keys show"), re.MULTILINE)
    stored = int(appliance.run("cd /; sudo -u postgres psql -At pacs -c 'SELECT max(object_key) FROM object'"))
    wait_for(lambda: _newest_object_key(appliance) >= stored, "there is no recovery point with all objects", 240)
    appliance.run("systemctl start pacs-drill.service")  # as the timer does: with the service's rights alone
    assert "proven" in appliance.run("pacs drill status")

    kept = Path(appliance.root, _PLACE[1:])
    boot_first(spare, "pacs-spare")
    shutil.copytree(kept, Path(spare.root, _PLACE[1:]), symlinks=True)
    appliance.run("pacs backup repository remove outside")  # for the tests that find none named
    spare.run(f"chown -R pacs: {_PLACE}")
    words = f"--repository {_PLACE} --yes --the-old-one-is-gone --sheet -"
    printed = spare.run(f"echo {'-'.join(key)} | pacs restore {words}")
    assert "3 objects" in printed
    _python(spare, _COMPARE)
    assert spare.run("systemctl list-units --state=failed --plain --no-legend") == ""

    spare.pull_the_plug()
    spare.boot(timeout_s=120)
    _python(spare, _COMPARE)
    assert "FAILED" not in spare.run("pacs selftest"), "on each port, that of TLS too"
    assert spare.run("systemctl list-units --state=failed --plain --no-legend") == ""
