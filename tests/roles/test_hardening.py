"""Debian's Lynis on the booted appliance, as a security officer would run it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.roles.container import Container

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

LEAST = 85
#: In a container the kernel is the host's.
_HOSTS = "skip-test=KRNL-5830\nskip-test=KRNL-6000\n"


def _index(appliance: Container, profile: str) -> tuple[int, str]:
    """The hardening index with a profile of ours beside Debian's, and what Lynis suggests."""
    (appliance.root / "etc/lynis/custom.prf").write_text(profile)
    appliance.run("lynis audit system --quick --quiet --no-colors --cronjob >/dev/null 2>&1 || true")
    report = (appliance.root / "var/log/lynis-report.dat").read_text()
    found = re.search(r"^hardening_index=(\d+)$", report, re.M)
    assert found is not None, report[-2000:]
    return int(found[1]), "\n".join(re.findall(r"^(?:suggestion|warning)\[\]=(.*)$", report, re.M))


def test_lynis_gives_85_and_its_profile_hides_nothing_that_matters(appliance: Container) -> None:
    lynis, ours = shutil.which("lynis"), appliance.root / "etc/lynis/custom.prf"
    if lynis is None:
        pytest.fail("lynis is missing: apt install lynis")
    profile = ours.read_text()
    shutil.copy(lynis, appliance.root / "usr/sbin/lynis")
    shutil.copytree("/usr/share/lynis", appliance.root / "usr/share/lynis")
    shutil.copytree("/etc/lynis", ours.parent, dirs_exist_ok=True, symlinks=True)
    try:
        bare, _ = _index(appliance, _HOSTS)
        found, suggested = _index(appliance, _HOSTS + profile)
        print(f"Lynis: {found}; {bare} without the appliance's profile\n{suggested}")
        assert found >= LEAST, suggested
        assert bare >= 70, "what is left out carries the figure"
    finally:
        shutil.rmtree(ours.parent)
        ours.parent.mkdir()
        ours.write_text(profile)
        for path in ("usr/sbin/lynis", "var/log/lynis-report.dat", "var/log/lynis.log"):
            (appliance.root / path).unlink(missing_ok=True)
        shutil.rmtree(Path(appliance.root, "usr/share/lynis"), ignore_errors=True)
