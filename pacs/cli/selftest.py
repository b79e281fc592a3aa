"""`pacs selftest`: does the running node do what it is for?"""

from __future__ import annotations

import faulthandler
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType
from typing import Annotated

import typer

from pacs import clock
from pacs.cli.context import acting_as_owner, data_of
from pacs.cli.instance import open_instance
from pacs.errors import SelftestFailed
from pacs.index.runs import forget_old_runs, record_run
from pacs.net.selftest_run import Selftest, Step

_KEPT = 200
#: How long a selftest may take [s]: one that hangs has found something. And how long its cleaning up may take then.
_LIMIT_S, _CLEAN_S = 600.0, 60.0


def selftest(
    context: typer.Context,
    limit_s: Annotated[float, typer.Option("--limit", help="How long it may take [s]; then it has failed.")] = _LIMIT_S,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Send a synthetic study through the running node: a line a step. Ends with 0 if every one passed, else with 13.

    C-ECHO, C-STORE, C-FIND and C-GET on each port, C-MOVE to itself, storage commitment, and delete. Nothing of it is
    seen by anybody, and nothing is left.
    """
    data, started = data_of(context), clock.now()

    def tell(step: Step) -> None:
        if not as_json:
            typer.echo(f"{'ok' if step.passed else 'FAILED':8}{step.name:32}{step.message}  ({step.seconds:.2f} s)")

    with acting_as_owner(data), open_instance(data) as instance:
        run = Selftest(instance.settings, instance.database, instance.volumes, tell)
        with _within(limit_s):
            run.run()
        result = {"steps": [asdict(step) for step in run.steps]}
        record_run(instance.database, "selftest", started, run.passed, result)
        forget_old_runs(instance.database, "selftest", _KEPT)
    if as_json:
        typer.echo(json.dumps({"passed": run.passed, **result}))
    if not run.passed:
        failed = next((step for step in run.steps if not step.passed), None)
        raise SelftestFailed(f"The selftest failed at {failed.name}." if failed else None)


@contextmanager
def _within(limit_s: float) -> Iterator[None]:
    """End what hangs in the block: SelftestFailed is raised where it stands. Where that is goes to the journal."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        faulthandler.dump_traceback()
        raise SelftestFailed(f"It hangs: the selftest has not come further in {limit_s:.0f} s. See its journal.")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, limit_s, _CLEAN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
