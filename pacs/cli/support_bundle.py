"""`pacs support-bundle`: what whoever helps must know, without a patient's data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pacs.checks.check import Ground, Subject, run_all
from pacs.checks.registry import CHECKS, look_without
from pacs.cli.context import data_of
from pacs.cli.instance import open_instance
from pacs.cli.priority import giving_way
from pacs.errors import PacsError, UsageError
from pacs.machine.support_bundle import Node, make_bundle
from pacs.settings import load

#: A statement of it takes no longer: a bundle is asked for when something does not answer [s].
_PATIENCE_S = 120.0


def support_bundle(
    context: typer.Context,
    to: Annotated[Path | None, typer.Option(help="The file to write; else it goes to standard output.")] = None,
) -> None:
    """Write an archive of versions, checks, states, figures and recent log lines, in which there is no patient's data:
    `sudo pacs support-bundle > bundle.tar.gz`."""
    data = data_of(context)
    if to is None and sys.stdout.isatty():
        raise UsageError("It is a file. Write it to one: `sudo pacs support-bundle > bundle.tar.gz`")
    with giving_way():
        bundle = _bundle(data)
    if to is None:
        sys.stdout.buffer.write(bundle)
        sys.stdout.buffer.flush()
        return
    try:
        to.write_bytes(bundle)
    except OSError as error:
        raise UsageError(f"{to} cannot be written: {error.strerror}. Name another file.") from error


def _bundle(data: Path) -> bytes:
    settings = load(data)
    try:
        with open_instance(data, timeout_s=_PATIENCE_S) as instance:
            subject = Subject(instance.settings, instance.database, instance.volumes)
            return make_bundle(Node(settings, run_all(subject, CHECKS), subject))
    except PacsError as error:
        return make_bundle(Node(settings, look_without(Ground(settings), error), None))
