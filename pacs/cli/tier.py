"""`pacs tier`: how the storage tiers stand, what moves between them and why, and the rules."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from pacs.archive import tiering
from pacs.archive.move import Mover
from pacs.archive.move_group import Pass
from pacs.cli.context import data_of
from pacs.cli.instance import open_instance
from pacs.cli.table import print_table
from pacs.errors import UsageError
from pacs.model.tier_rules import AgeOf, Rule

tier = typer.Typer(no_args_is_help=True, help="The storage tiers: what moves, when and why.")
rule = typer.Typer(no_args_is_help=True, help="The rules by which studies move down.")
tier.add_typer(rule, name="rule")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@tier.command("status")
def tier_status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show how full the tiers and volumes are, what leaves them, what moves next and why, and recalls under way."""
    from pacs.cli.tier_status import print_status, status_json

    with open_instance(data_of(context)) as instance:
        if as_json:
            typer.echo(json.dumps(status_json(instance), default=str))
        else:
            print_status(instance)


@tier.command("plan")
def tier_plan(
    context: typer.Context,
    limit: Annotated[int, typer.Option(help="How many studies are shown of each rule.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show what the rules would move now, how much, and why. Nothing is moved."""
    with open_instance(data_of(context)) as instance:
        planned = tiering.plan(instance.database, instance.volumes, instance.settings)
    _print_plan(planned, limit, as_json)


@tier.command("move")
def tier_move(
    context: typer.Context,
    low: Annotated[float, typer.Option(help="Move until tier 1 is this full [percent].")] = 0.0,
) -> None:
    """Move settled studies to tier 2 now, the longest unused first, without waiting for the high mark."""
    with open_instance(data_of(context)) as instance:
        if not instance.volumes.tier(2):
            raise UsageError("There is no tier 2 here. Add a volume: `pacs volume add`.")
        mover = Mover(instance.database, instance.volumes, instance.settings.settle_s, instance.settings.recall_keep_s)
        done = Pass()
        try:
            mover.move_down(low, done)
        finally:
            mover.close()
    typer.echo(
        f"{done.studies} studies, {done.objects} objects, {done.size_bytes / 1e6:.1f} MB moved; {done.failed} failed."
    )


# --- rules -----------------------------------------------------------------------------------------------------------


@rule.command("list")
def rule_list(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the rules in force, in the order in which they are followed."""
    with open_instance(data_of(context)) as instance:
        found = tiering.rules_in_force(instance.database, instance.settings)
    if as_json:
        typer.echo(json.dumps([each.values for each in found]))
        return
    print_table(("name", "rule"), [(each.name, each.words) for each in found])


@rule.command("add")
def rule_add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A name of your choice; `default` replaces the rule of the settings.")],
    from_tier: Annotated[int, typer.Option("--from", help="The tier that studies leave.")],
    to_tier: Annotated[int, typer.Option("--to", help="The tier that they go to, a lower one.")],
    high: Annotated[float | None, typer.Option(help="Begin when the tier is this full [percent].")] = None,
    low: Annotated[float | None, typer.Option(help="... and end when it is this full [percent].")] = None,
    age: Annotated[float | None, typer.Option(help="Only studies so old [days].")] = None,
    age_of: Annotated[str, typer.Option(help="What age is counted from: arrival, or `study date`.")] = "arrival",
    unused: Annotated[float | None, typer.Option(help="Only studies not retrieved for so long [days].")] = None,
    modality: Annotated[
        list[str] | None, typer.Option(help="Only studies with this modality; may be repeated.")
    ] = None,
    device: Annotated[list[str] | None, typer.Option(help="Only from this device, by name; may be repeated.")] = None,
    tenant: Annotated[list[str] | None, typer.Option(help="Only of this tenant; may be repeated.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Copy, and keep the copy above: two copies.")] = False,
    window: Annotated[
        list[str] | None, typer.Option(help="Only then, as 22:00-06:00 or `sat-sun 00:00-24:00`; may be repeated.")
    ] = None,
    speed: Annotated[float | None, typer.Option(help="At most so fast [MB/s].")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would move; do not add it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Add a rule, or write the one of this name anew. It is followed from the worker's next look on."""
    if age_of not in ("arrival", "study date"):
        raise UsageError("Age is counted from `arrival` or from the `study date`.")
    of: AgeOf = "study date" if age_of == "study date" else "arrival"
    made = Rule(
        name, from_tier, to_tier, high, low, age, of, unused, tuple(each.upper() for each in modality or ()),
        tuple(device or ()), tuple(tenant or ()), keep, tuple(window or ()),
        None if speed is None else int(speed * 1e6),
    )  # fmt: skip
    with open_instance(data_of(context)) as instance:
        tiering.require_sound_here(instance.database, instance.settings, made)
        if dry_run:
            _print_plan(tiering.plan(instance.database, instance.volumes, instance.settings, made), 20, as_json)
            return
        tiering.add_rule(instance.database, instance.journal, instance.settings, made)
    typer.echo(f"Rule {name}: {made.words}. `pacs tier plan` shows what it moves.")


@rule.command("remove")
def rule_remove(context: typer.Context, name: Annotated[str, typer.Argument(help="Its name.")]) -> None:
    """Forget a rule. What has moved stays where it is."""
    with open_instance(data_of(context)) as instance:
        tiering.remove_rule(instance.database, instance.journal, name)
    typer.echo(f"Rule {name} is removed.")


def _print_plan(planned: list[tiering.Planned], limit: int, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([_plan_json(each) for each in planned], default=str))
        return
    for each in planned:
        typer.echo(f"{each.rule.name}: {each.rule.words}")
        typer.echo(f"  {'due: ' if each.look.is_due else 'not due: '}{each.look.why}")
        if not each.look.is_due:
            continue
        if not each.moves:
            typer.echo("  no study is like that")
            continue
        more = " and more" if each.is_more else ""
        typer.echo(f"  moves {len(each.moves)} studies, {each.size_bytes / 1e9:.2f} GB{more}")
        if each.moves[:limit]:
            print_table(
                ("  study", "objects", "MB", "why"),
                [
                    (f"  {move.study_instance_uid}", str(move.objects), f"{move.size_bytes / 1e6:.1f}", move.why)
                    for move in each.moves[:limit]
                ],
            )


def _plan_json(planned: tiering.Planned) -> dict[str, Any]:
    return {
        "rule": planned.rule.values,
        "is_due": planned.look.is_due,
        "why": planned.look.why,
        "size_bytes": planned.size_bytes,
        "is_more": planned.is_more,
        "moves": [asdict(move) for move in planned.moves],
    }
