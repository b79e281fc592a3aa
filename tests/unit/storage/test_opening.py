"""What each kind promises is what its page says."""

from __future__ import annotations

from pathlib import Path

from pacs.storage.opening import reference


def test_the_reference_page_is_made_from_the_promises() -> None:
    page = Path(__file__).parents[3] / "docs" / "reference" / "volumes.md"
    assert page.read_text("utf-8").endswith(reference())
