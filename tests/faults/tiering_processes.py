"""As tiering.py, with every rule followed by several processes: a module of forked.py."""

from __future__ import annotations

from pacs import log
from pacs.archive import move
from tests.faults.forked import serve
from tests.faults.tiering import work

if __name__ == "__main__":
    log.set_up(to_journal=False, verbose=False)
    move.PROCESSES_FROM_OBJECTS = 0
    serve(work)
