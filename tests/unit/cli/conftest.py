"""`pacs` as its entry point runs it, in this process: exit code, output, error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from pacs.cli.main import main


@dataclass(frozen=True)
class Outcome:
    """What a command ended with and printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs `pacs` with words."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    for name in ("PACS_DATA", "PACS_DATABASE", "JOURNAL_STREAM"):
        monkeypatch.delenv(name, raising=False)

    def pacs(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["pacs", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    yield pacs
    root.handlers[:] = handlers
    root.setLevel(level)
