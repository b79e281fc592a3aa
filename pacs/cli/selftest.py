"""`pacs selftest`: does the running node do what it is for?"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from pacs import clock
from pacs.cli.context import acting_as_owner, data_of
from pacs.cli.instance import open_instance
from pacs.errors import SelftestFailed
from pacs.index.runs import forget_old_runs, record_run
from pacs.net.selftest_run import Selftest, Step

_KEPT = 200


def selftest(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
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
        run.run()
        result = {"steps": [asdict(step) for step in run.steps]}
        record_run(instance.database, "selftest", started, run.passed, result)
        forget_old_runs(instance.database, "selftest", _KEPT)
    if as_json:
        typer.echo(json.dumps({"passed": run.passed, **result}))
    if not run.passed:
        failed = next((step for step in run.steps if not step.passed), None)
        raise SelftestFailed(f"The selftest failed at {failed.name}." if failed else None)
