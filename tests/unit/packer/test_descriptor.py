"""The descriptor's template: nothing that is put in can change its shape."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from packer.errors import BuildError
from packer.ova.descriptor import MIB, Disk, Machine, render

_OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"


def _disk(name: str = "system", capacity_bytes: int = 64 * MIB, description: str = "x") -> Disk:
    return Disk(name, f"{name}.vmdk", 1000, capacity_bytes, 0, description)


@pytest.mark.parametrize("text", ["A & B", "<x>", "\"quoted\" 'twice'", "]]>", "Größe 5 µm", "{{ 7 * 7 }}"])
def test_every_text_comes_out_as_it_went_in(text: str) -> None:
    machine = Machine(text, text, [_disk(description=text)], product=text, vendor=text, annotation=text)
    root = ET.fromstring(render(machine))
    for tag in ("Name", "Product", "Vendor", "Version", "Annotation"):
        found = root.find(f".//{_OVF}{tag}")
        assert found is not None, tag
        assert found.text == text
    system = root.find(f"{_OVF}VirtualSystem")
    assert system is not None
    assert system.get(f"{_OVF}id") == text


def test_a_disk_of_a_broken_size_is_refused() -> None:
    with pytest.raises(BuildError, match="MiB"):
        render(Machine("m", "1", [_disk(capacity_bytes=MIB + 512)]))
