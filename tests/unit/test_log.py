"""The log: one line an event, nothing that forges one, nothing of a patient's."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator

import pytest

from pacs import log


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged, with logging set up as the services do."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    pydicom_level = logging.getLogger("pydicom").level
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with warnings.catch_warnings():
        log.set_up()
        yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("pydicom").setLevel(pydicom_level)
    log._PRIORITY.clear()


def test_one_line_an_event(written: io.StringIO) -> None:
    logging.getLogger("pacs.x").warning("a %s\r\nerror: forged\x1b[2J\x00\x85\u2028", "b\nc", extra={"path": "d\ne"})
    assert written.getvalue().count("\n") == 1
    assert "forged" in written.getvalue()
    assert not any(ord(character) < 32 for character in written.getvalue()[:-1])
    assert len(written.getvalue().splitlines()) == 1


def test_only_harmless_keys_are_written(written: io.StringIO) -> None:
    logging.getLogger("pacs.x").warning(
        "sentence", extra={"patient_name": "Secret^P", "calling_ae": "CT1", "object": 7}
    )
    assert "Secret" not in written.getvalue()
    assert "calling_ae=CT1" in written.getvalue()
    assert "object=7" in written.getvalue()


def test_an_exceptions_text_and_locals_are_not_written(written: io.StringIO) -> None:
    def fail() -> None:
        name = "Secret^Patient"
        raise ValueError(f"cannot parse {name}")

    try:
        fail()
    except ValueError:
        logging.getLogger("pacs.x").exception("failed")
    assert "Secret" not in written.getvalue()
    assert "ValueError at" in written.getvalue()
    assert "test_log.py" in written.getvalue()
    assert written.getvalue().count("\n") == 1


def test_what_libraries_say_of_values_is_not_written(written: io.StringIO) -> None:
    from pydicom.dataset import Dataset

    ds = Dataset()
    ds.StudyInstanceUID = "Secret^Patient"
    ds.StudyDate = "Secret"
    logging.getLogger("pydicom").warning("Invalid value for VR UI: 'Secret'")
    assert "Secret" not in written.getvalue()


def test_systemd_learns_the_priority(written: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", written)
    log.set_up(to_journal=True)
    logging.getLogger("pacs.x").error("sentence")
    assert written.getvalue().startswith("<3>error: ")
