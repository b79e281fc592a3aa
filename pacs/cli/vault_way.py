"""The options --repository or --place, and --pulled-by: where a repository is, or which vault keeps it and dials us."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pacs.archive.volume_places import Given
from pacs.backup.pulled import given_by, let_in, write_authorized
from pacs.backup.vaults import Answer
from pacs.cli.restore_server import as_service
from pacs.errors import UsageError

PulledBy = Annotated[
    str | None,
    typer.Option(help="Instead of a place: what `pacs vault add` printed on the appliance that keeps it."),
]


@contextmanager
def at_vault(data: Path, place: str | None, text: str | None, given: Given) -> Iterator[tuple[str | None, Given]]:
    """A place as it is said; or that of a vault, which is let in and has dialled when the block begins. After the block
    those vaults are let in that are repositories."""
    if text is None:
        yield place, given
        return
    if place is not None:
        raise UsageError("Give a place or --pulled-by, not both.")
    answer = Answer.of(sys.stdin.read() if text == "-" else text)
    try:
        with as_service(data):
            found, theirs = given_by(data, answer)
            let_in(data, answer)
        yield found, replace(theirs, on_system_disk=given.on_system_disk)
    finally:
        with as_service(data):
            write_authorized(data)
