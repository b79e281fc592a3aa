"""The sample studies of `vagrant provision --provision-with samples`, sent to an archive."""

from __future__ import annotations

import pytest

from tests import samples
from tests.fix_instance import Dev


def test_they_are_stored_once(dev: Dev, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--port", str(dev.dicom_port), "--studies", "2", "--images", "3", "--size", "32"]
    for _ in range(2):
        assert samples.main(words) == 0
        assert capsys.readouterr().out == "6 images of 2 studies are stored\n"
    listed = dev.pacs("study", "list", "--json").stdout
    assert listed.count('"study_instance_uid"') == 2


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    assert samples.main(["--port", "1", "--studies", "1"]) == 1
    assert "takes no association" in capsys.readouterr().err
