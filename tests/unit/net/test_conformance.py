"""The conformance statement says what the code does, and the file in docs is the one that the code writes."""

from __future__ import annotations

from pathlib import Path

import yaml

from pacs.net.conformance import PORTS, TLS_PORTS, statement
from pacs.net.negotiation import SERVED
from pacs.settings import Settings
from pacs.web.conformance import sections

ROOT = Path(__file__).parents[3]


def test_the_file_is_what_the_code_generates() -> None:
    written = (ROOT / "docs" / "reference" / "conformance.md").read_text("utf-8")
    settings = Settings(data=Path("/srv/pacs/state"))
    assert written == statement(settings, sections(settings)), "run `make reference`"


def test_an_instances_own_settings_stand_in_it() -> None:
    found = statement(Settings(data=Path("/x"), ae_title="OURS", associations_max=7, user_identity="required"))
    assert "`OURS`" in found
    assert "| associations at once | 7 |" in found
    assert "(PS3.7 D.3.3.7): required" in found


def test_everything_that_is_served_stands_in_it() -> None:
    found = statement(Settings(data=Path("/x")))
    for uid in SERVED:
        assert f"`{uid}`" in found


def test_the_ports_are_the_appliances() -> None:
    defaults = yaml.safe_load((ROOT / "roles" / "pacs" / "defaults" / "main.yml").read_text())
    assert tuple(defaults["pacs_dicom_ports"]) == PORTS
    assert (defaults["pacs_dicom_tls_port"],) == TLS_PORTS
