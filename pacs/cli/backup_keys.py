"""`pacs backup keys`: the recovery sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pacs.backup.key_changes import recover, reseal, rotated, sheet, verify
from pacs.backup.keys import MasterKey, master_key
from pacs.backup.repositories import repositories, repository_named
from pacs.cli.context import data_of
from pacs.cli.instance import open_instance
from pacs.cli.volume import print_findings
from pacs.errors import VolumeError

SheetFile = Annotated[
    Path | None,
    typer.Option("--sheet-file", help="A file with the key as it stands on the sheet; else it is asked for."),
]
keys = typer.Typer(no_args_is_help=True, help="The recovery sheet: without it nobody can read a backup.")


@keys.command("show")
def keys_show(context: typer.Context) -> None:
    """Print the recovery sheet. Keep it on paper, away from the appliance: who has it can read every backup."""
    typer.echo(sheet(data_of(context)))


@keys.command("rotate")
def keys_rotate(context: typer.Context) -> None:
    """Make a new recovery sheet. The old one opens nothing any more that is in a repository from now on."""
    data = data_of(context)
    with open_instance(data) as instance:
        rotated(data)
        findings = reseal(data, instance.volumes)
    typer.echo(sheet(data))
    print_findings(findings)
    if bad := [each.what for each in findings if not each.is_well]:
        raise VolumeError(
            f"Not sealed anew yet: {', '.join(bad)}. The worker does it when they are back; until then only the old "
            "sheet opens them: keep both."
        )


@keys.command("recover")
def keys_recover(
    context: typer.Context,
    repository: Annotated[str, typer.Argument(help="As `pacs backup repository list` shows.")],
    sheet_file: SheetFile = None,
) -> None:
    """Take the appliance's keys back from one of its repositories, by the sheet, where config/keys was lost."""
    data = data_of(context)
    recover(data, repository_named(data, repository), MasterKey.typed(_words(sheet_file)))
    typer.echo("The keys are those of the repository again. The services use them within seconds.")


@keys.command("verify")
def keys_verify(
    context: typer.Context,
    sheet_file: SheetFile = None,
) -> None:
    """Type the key from the recovery sheet, and see whether it opens every repository. Ends with 5 if not."""
    data = data_of(context)
    typed = MasterKey.typed(_words(sheet_file))
    if not repositories(data):
        is_ours = typed == master_key(data)
        typer.echo("It is this appliance's." if is_ours else "It is not this appliance's key, or an old one.")
        raise typer.Exit(0 if is_ours else VolumeError.exit_code)
    with open_instance(data) as instance:
        findings = verify(data, instance.volumes, typed)
    print_findings(findings)
    if bad := [each.what for each in findings if not each.is_well]:
        raise VolumeError(f"This key does not open: {', '.join(bad)}. Print the valid sheet: `pacs backup keys show`.")


def _words(sheet_file: Path | None) -> str:
    if sheet_file is None:
        return str(typer.prompt("The key, as it stands on the sheet"))
    return sheet_file.read_text("utf-8")
