"""`pacs conflict`: what came and contradicts what was here; a person decides."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from pacs.cli.context import data_of
from pacs.cli.instance import open_database, open_instance
from pacs.cli.table import print_table
from pacs.errors import UsageError
from pacs.index import conflicts as rows
from pacs.index.conflicts import KINDS, Decision
from pacs.settings import load

conflict = typer.Typer(no_args_is_help=True, help="What came and contradicts what was here.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Number = Annotated[int, typer.Argument(metavar="ID", help="As `pacs conflict list` shows.")]


@conflict.command("list")
def conflict_list(
    context: typer.Context,
    as_json: AsJson = False,
    with_resolved: Annotated[bool, typer.Option("--all", help="Those that were resolved, too.")] = False,
) -> None:
    """Show the conflicts, the oldest first."""
    from pacs.archive.conflicts import about  # here, as it imports all of pydicom

    with open_database(load(data_of(context))) as database:
        found = [
            {
                "conflict_key": row["conflict_key"],
                "kind": row["kind"],
                "what": KINDS[row["kind"]][0],
                "about": about(database, row),
                "raised_at": row["raised_at"],
                "resolution": row["resolution"],
            }
            for row in rows.list_conflicts(database, with_resolved)
        ]
    if as_json:
        typer.echo(json.dumps(found, default=str))
        return
    print_table(
        ("id", "what", "about", "raised", "resolved"),
        [
            (
                str(each["conflict_key"]), each["what"], ", ".join(each["about"].values()),
                f"{each['raised_at'].astimezone():%Y-%m-%d %H:%M}", each["resolution"] or "",
            )
            for each in found
        ],
    )  # fmt: skip


@conflict.command("show")
def conflict_show(context: typer.Context, number: Number, as_json: AsJson = False) -> None:
    """Compare what is here with what came: the attributes that differ."""
    from pacs.archive.conflicts import about, compare

    with open_instance(data_of(context)) as instance:
        row = rows.conflict(instance.database, number)
        comparison = compare(instance.database, instance.volumes, row)
        uids = about(instance.database, row)
    words, possible = KINDS[row["kind"]]
    if as_json:
        shown = {"conflict_key": number, "kind": row["kind"], "about": uids, "possible": possible}
        typer.echo(json.dumps({**shown, **asdict(comparison), "resolution": row["resolution"]}, default=str))
        return
    typer.echo(f"{words}; raised {row['raised_at'].astimezone():%Y-%m-%d %H:%M}")
    for name, uid in uids.items():
        typer.echo(f"{name.replace('_', ' ')}: {uid}")
    print_table(
        ("tag", "attribute", "here", "came"),
        [(d.path, d.name, _shown(d.one), _shown(d.other)) for d in comparison.differences],
    )
    if comparison.pixels:
        typer.echo(f"pixels: {comparison.pixels}")
    if row["resolution"]:
        typer.echo(f"resolved: {row['resolution']}")
    else:
        typer.echo(f"resolve it: `pacs conflict resolve {number}` with {' or '.join('--' + each for each in possible)}")


def _shown(value: str | None) -> str:
    return "(none)" if value is None else value or "(empty)"


@conflict.command("resolve")
def conflict_resolve(
    context: typer.Context,
    number: Number,
    keep: Annotated[bool, typer.Option("--keep", help="What is here stays; the other is kept as history.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="The other counts from now on.")] = False,
    new_uids: Annotated[bool, typer.Option("--new-uids", help="The other gets its own UID: both are found.")] = False,
) -> None:
    """Decide a conflict. Nothing is removed; the decision is journalled."""
    given: dict[Decision, bool] = {"keep": keep, "replace": replace, "new-uids": new_uids}
    chosen = [decision for decision, is_given in given.items() if is_given]
    if len(chosen) != 1:
        raise UsageError("Decide with one of --keep, --replace and --new-uids. `pacs conflict show` compares.")
    from pacs.archive.conflicts import resolve

    with open_instance(data_of(context)) as instance:
        done = resolve(instance.database, instance.journal, instance.volumes, instance.store(), number, chosen[0])
    typer.echo(f"Conflict {number} is resolved. {done}")
