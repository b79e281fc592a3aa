"""The fence of a node, and who may still read."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacs.errors import Fenced
from pacs.model.lineage import Finding
from pacs.storage.lineage import LineageFiles
from pacs.storage.looking_back import act_on


def test_a_node_that_is_handed_over_is_read_until_another_has_taken_over(tmp_path: Path) -> None:
    files = LineageFiles(tmp_path)
    files.fence("it was handed over", may_be_read=True)
    with pytest.raises(Fenced):
        files.require_not_fenced()
    files.require_readable()

    act_on(files, [Finding("higher epoch", "tier1", "tier1 is in epoch 2", epoch=2)])
    assert files.fenced() == "tier1 is in epoch 2"
    with pytest.raises(Fenced):
        files.require_readable()
    act_on(files, [Finding("higher epoch", "tier2", "tier2 is in epoch 2", epoch=2)])
    assert files.fenced() == "tier1 is in epoch 2", "what it met first is what it says"

    files.lift_fence()
    files.require_not_fenced()
    files.require_readable()


def test_a_node_that_met_a_higher_epoch_is_not_read(tmp_path: Path) -> None:
    files = LineageFiles(tmp_path)
    files.fence("tier1 is in epoch 2", 2)
    assert not files.is_paused()
    with pytest.raises(Fenced):
        files.require_readable()
