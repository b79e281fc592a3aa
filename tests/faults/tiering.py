"""Moves, recalls and drains an instance without end, to be killed: a module of forked.py."""

from __future__ import annotations

import threading
from pathlib import Path

from pacs import log
from pacs.cli.instance import open_instance
from pacs.jobs import worker
from tests.faults.forked import say_begun, serve


def work(data: Path) -> None:
    """Be the instance's worker until killed; recalls are looked at as often as moves."""
    with open_instance(data) as instance:
        worker.RECALL_INTERVAL_S = instance.settings.tier_interval_s
        working = worker.Worker(instance.settings, instance.database, instance.journal, instance.volumes)
        say_begun()
        working.run(threading.Event())


if __name__ == "__main__":
    log.set_up(to_journal=False, verbose=False)
    serve(work)
