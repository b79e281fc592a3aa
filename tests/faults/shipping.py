"""Ships an instance's objects to its repositories without end, to be killed: a module of forked.py."""

from __future__ import annotations

import contextlib
from pathlib import Path

from pacs import log
from pacs.backup.repositories import repositories
from pacs.backup.shipping import Shipper
from pacs.cli.instance import open_instance
from pacs.index.locks import AlreadyRunning
from tests.faults.forked import say_begun, serve


def work(data: Path) -> None:
    """Ship until killed."""
    with open_instance(data) as instance:
        shipper = Shipper(instance.database, instance.volumes)
        say_begun()
        while True:
            for repository in repositories(data):
                with contextlib.suppress(AlreadyRunning):  # the server has not noticed the last kill yet
                    shipper.run(repository)


if __name__ == "__main__":
    log.set_up(to_journal=False, verbose=False)
    serve(work)
