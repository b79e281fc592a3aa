"""The descriptor against the DMTF's own schema (DSP8023 1.1.1), where that is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lxml import etree

SCHEMA = Path(os.environ.get("PACS_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "ovf-schema"


class _Local(etree.Resolver):
    """Imports of the schema by address are answered from the same folder; nothing is fetched."""

    def resolve(self, system_url: str, public_id: str | None, context: object) -> object:
        """The file of that name in the schema's folder."""
        return self.resolve_filename(str(SCHEMA / Path(system_url).name), context)


@pytest.fixture(scope="module")
def schema() -> etree.XMLSchema:
    if not (SCHEMA / "dsp8023_1.1.1.xsd").is_file():
        pytest.skip(f"the DMTF's schema is not in {SCHEMA}")
    parser = etree.XMLParser(no_network=True)
    parser.resolvers.add(_Local())
    return etree.XMLSchema(etree.parse(str(SCHEMA / "dsp8023_1.1.1.xsd"), parser))


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
