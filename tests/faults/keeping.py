"""Scrubs, repairs and compares an instance without end, to be killed: a module of forked.py."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

from pacs.archive.reconcile import reconcile
from pacs.archive.repair import Repair
from pacs.archive.scrub import Scrub
from pacs.cli.instance import open_instance
from pacs.index.locks import AlreadyRunning
from tests.faults.forked import say_begun, serve


def work(data: Path) -> None:
    """Keep the instance until killed."""
    with open_instance(data) as instance:
        say_begun()
        while True:
            try:
                Scrub(instance.database, instance.volumes, timedelta(days=90)).run(everything=True)
                Repair(instance.database, instance.volumes.by_id).run(at_once=True)
                reconcile(instance.database, instance.volumes.all(), orphan_age_s=0)
            except AlreadyRunning:  # the server has not noticed yet that the one before was killed
                time.sleep(0.01)


if __name__ == "__main__":
    serve(work)
