"""`pacs token`: who may ask over the web (DICOMweb)."""

from __future__ import annotations

from typing import Annotated

import typer

from pacs import clock
from pacs.archive import tokens
from pacs.cli.context import data_of
from pacs.cli.instance import open_database
from pacs.cli.table import print_table
from pacs.index.tokens import list_tokens
from pacs.settings import load
from pacs.storage.journal import Journal

token = typer.Typer(no_args_is_help=True, help="Tokens that programs and viewers show to DICOMweb.")


@token.command("add")
def token_add(
    context: typer.Context,
    name: str,
    scope: Annotated[list[str], typer.Option(help="What it is for: read, store. May be given again.")],
    network: Annotated[list[str] | None, typer.Option(help="A network it may be used from; else from any.")] = None,
    days: Annotated[float | None, typer.Option(help="How long it is good; else until it is removed.")] = None,
) -> None:
    """Make a token. It is printed once, on a line of its own, and cannot be shown again."""
    settings = load(data_of(context))
    with open_database(settings) as database:
        made, secret = tokens.add_token(database, Journal(settings.data), name, scope, network or (), days)
    until = f" until {made.expires_at:%Y-%m-%d %H:%M} UTC" if made.expires_at else ""
    typer.echo(
        f"Token {made.name} may {' and '.join(made.scopes)}{until}. Keep it where nobody else reads it:", err=True
    )
    typer.echo(secret)


@token.command("list")
def token_list(context: typer.Context) -> None:
    """List the tokens: what each may do, from where, and until when."""
    with open_database(load(data_of(context))) as database:
        known = list_tokens(database)
    print_table(
        ("name", "scopes", "networks", "made", "good until"),
        [
            (
                each.name, " ".join(each.scopes), " ".join(each.networks) or "any",
                f"{each.created_at:%Y-%m-%d}" if each.created_at else "",
                "removed" if each.expires_at is None
                else f"{each.expires_at:%Y-%m-%d %H:%M}" + (" (over)" if each.expires_at < clock.now() else ""),
            )
            for each in known
        ],
    )  # fmt: skip


@token.command("remove")
def token_remove(context: typer.Context, name: str) -> None:
    """Forget a token: from the next request on it is refused."""
    settings = load(data_of(context))
    with open_database(settings) as database:
        tokens.remove_token(database, Journal(settings.data), name)
    typer.echo(f"Token {name} is no longer good.")
