"""A standby between two booted appliances, as docs/operate/standby.md tells it: users, units, sandboxes, sshd and
firewall are the guest's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.process import wait_for
from tests.roles.pair import Site

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

_ON_BOTH = "/srv/pacs/state/identity/dicom-tls/certificate.pem"


@pytest.fixture
def site(pristine: Path, tmp_path: Path) -> Iterator[Site]:
    with Site.booted(pristine, tmp_path) as made:
        yield made


def test_a_standby_takes_over_under_load_and_the_first_one_takes_over_again(site: Site) -> None:
    first, second, modality = site.first, site.second, site.modality
    certificate = first.container.run(f"cat {_ON_BOTH}")
    modality.begin(first.address, second.address)
    modality.wait_for_more(first.address)
    site.pair()
    assert first.complaints() == []
    assert second.complaints() == []
    assert second.json("standby status")["is"] == "the standby"
    wait_for(lambda: second.container.succeeds("pacs check"), "a standby that has all is not well", 60)
    assert "answers" in second.refusal("standby promote --yes")
    modality.wait_for_more(first.address, 50)
    wait_for(lambda: first.shipped() > 50, "nothing is shipped", 120)

    _killed_and_promoted(site)
    assert second.container.run(f"cat {_ON_BOTH}") == certificate, "devices know the archive by it"
    assert "modality" in second.pacs("device list")
    second.pacs("selftest")
    assert second.complaints() == []
    second.pacs("standby release")

    # The first one wakes up: it is fenced, and what only it had comes to the archive.
    first.boot()
    wait_for(lambda: first.json("lineage show")["fenced"], "it is not fenced", 60)
    second.container.run("systemctl start pacs-reconcile.service")
    wait_for(lambda: not modality.compared(second.address)["missing"], "not all of it comes back", 180)
    modality.wait_for_more(second.address)
    taken = len(modality.taken_by(first.address))
    first.pacs("standby follow --yes")
    wait_for(second.is_followed, "the first one does not follow", 120)
    assert first.complaints() == []

    # Handed over while the modality sends, the first one takes over again, and nothing is lost.
    second.pacs("standby hand-over")
    first.pacs("standby promote --yes")
    modality.wait_for_more(first.address)
    assert len(modality.taken_by(first.address)) > taken
    modality.end()
    compared = modality.compared(first.address)
    assert (compared["missing"], compared["different"]) == ([], [])
    first.pacs("selftest")
    assert first.complaints() == []


def _killed_and_promoted(site: Site) -> None:
    """Kill the first one hard, and promote the second. What was lost is listed."""
    first, second, modality = site.first, site.second, site.modality
    first.power_off()
    began_s = time.monotonic()
    promoted = second.json("standby promote --yes")
    modality.wait_for_more(second.address, 1)
    took_s = modality.taken_by(second.address)[0]["at_s"] - began_s
    compared = modality.compared(second.address)
    listed = sum(row["objects"] for row in promoted["not_here"])
    print(
        f"promoted after {promoted['took_s']:.1f} s, the first C-STORE taken after {took_s:.1f} s; acknowledged "
        f"{compared['acknowledged']}, of those not here {len(compared['missing'])}, listed {listed}"
    )
    assert took_s < 60
    assert compared["different"] == []
    known = set(second.sql("SELECT sop_instance_uid FROM object"))
    assert len(set(compared["missing"]) & known) <= listed


def test_nothing_acknowledged_is_lost_where_answers_wait_for_the_standby(site: Site) -> None:
    first, second, modality = site.first, site.second, site.modality
    site.pair()
    wait_for(first.is_level, "the standby does not get all", 120)
    setting = "echo 'standby_answer = \"wait-or-refuse\"' >>/srv/pacs/state/config/pacs.toml"
    first.container.run(f"{setting}; systemctl restart 'pacs-receiver@*'")
    modality.begin(first.address, second.address)
    modality.wait_for_more(first.address, 20)

    second.power_off()
    wait_for(lambda: 0xA700 in modality.statuses_of(first.address), "it takes images without the standby", 60)
    second.boot()
    modality.wait_for_more(first.address, 20)

    first.power_off()
    second.pacs("standby promote --yes")
    modality.wait_for_more(second.address, 5)  # it has no standby, and says so
    assert "without a standby" in second.container.run("pacs check || true")
    modality.end()
    compared = modality.compared(second.address)
    assert (compared["missing"], compared["different"]) == ([], [])
