"""The settings as OVF properties: what an importer's form asks for, and what comes back of it at the first start."""

from __future__ import annotations

import os

import pytest
from lxml import etree

from pacs.machine.machine_settings import PAGES, SETTINGS, TABLE

_OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"


@pytest.fixture
def product(members: dict[str, bytes]) -> etree._Element:
    found = etree.fromstring(next(iter(members.values()))).find(f".//{_OVF}ProductSection")
    assert found is not None
    return found


@pytest.mark.skipif("PACS_OVA" in os.environ, reason="an OVA that was built from another table")
def test_every_setting_is_a_property_but_passwords(product: etree._Element) -> None:
    keys = [each.get(f"{_OVF}key") for each in product.iter(f"{_OVF}Property")]
    assert keys == [row.name for page in PAGES for row in TABLE if row.page == page and not row.secret]
    assert [each.text for each in product.iter(f"{_OVF}Category")] == list(PAGES)


def test_each_may_be_left_blank_and_says_what_it_is(product: etree._Element) -> None:
    """A blank is what it says: the default. A key with a dot or colon is none (DSP0243 9.5.1)."""
    for each in product.iter(f"{_OVF}Property"):
        assert each.get(f"{_OVF}value") == ""
        assert each.get(f"{_OVF}type") == "string"
        assert each.get(f"{_OVF}userConfigurable") == "true"
        key = each.get(f"{_OVF}key", "")
        assert not set(key) & set(".:")
        label, meaning = each.find(f"{_OVF}Label"), each.find(f"{_OVF}Description")
        assert label is not None
        assert meaning is not None
        assert key not in SETTINGS or (meaning.text or "").startswith(SETTINGS[key].meaning)
