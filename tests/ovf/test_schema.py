"""The descriptor against the DMTF's own schema (DSP8023 1.1.1), where that is at hand."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from lxml import etree

SCHEMA = Path(os.environ.get("PACS_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "ovf-schema"


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> etree.XMLSchema:
    if not (SCHEMA / "dsp8023_1.1.1.xsd").is_file():
        pytest.skip(f"the DMTF's schema is not in {SCHEMA}")
    folder = tmp_path_factory.mktemp("schema")
    for file in SCHEMA.glob("*.xsd"):
        # What is imported by address lies in the same folder; nothing is fetched.
        text = re.sub(r'schemaLocation="http://[^"]*/([^/"]+)"', r'schemaLocation="\1"', file.read_text("utf-8"))
        (folder / file.name).write_text(text, "utf-8")
    return etree.XMLSchema(etree.parse(str(folder / "dsp8023_1.1.1.xsd"), etree.XMLParser(no_network=True)))


def test_valid(schema: etree.XMLSchema, members: dict[str, bytes]) -> None:
    schema.assertValid(etree.fromstring(next(iter(members.values()))))


def test_the_schema_can_refuse(schema: etree.XMLSchema, members: dict[str, bytes]) -> None:
    text = next(iter(members.values()))
    broken = text.replace(b"<rasd:InstanceID>1</rasd:InstanceID>", b"")
    assert broken != text
    assert not schema.validate(etree.fromstring(broken))


def test_sections_out_of_order_are_refused(schema: etree.XMLSchema, members: dict[str, bytes]) -> None:
    root = etree.fromstring(next(iter(members.values())))
    root.append(root[0])
    assert not schema.validate(root)
