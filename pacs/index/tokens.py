"""Queries about tokens: what programs and viewers show to ask over the web."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pacs.errors import NotFound
from pacs.index.database import Connection, Database, Row
from pacs.index.store import DEFAULT_TENANT


@dataclass(frozen=True)
class Token:
    """A token: its name, what it may do, where and until when. Its secret is known by its SHA-256 (hexadecimal)."""

    name: str
    sha256: str
    scopes: tuple[str, ...]
    #: Networks (CIDR) that it may be used from; none: anywhere.
    networks: tuple[str, ...] = ()
    created_at: datetime | None = None
    expires_at: datetime | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Token:
        """From a row, or from the journal's line."""

        def when(name: str) -> datetime | None:
            found = values.get(name)
            return datetime.fromisoformat(found) if isinstance(found, str) else found

        return cls(
            values["name"], values["sha256"], tuple(values["scopes"]), tuple(values["networks"]), when("created_at"),
            when("expires_at"),
        )  # fmt: skip


_SELECT = "SELECT name, sha256, scopes, networks, created_at, expires_at FROM api_token"


def put_token(connection: Connection, token: Token) -> None:
    """Insert a token."""
    connection.execute(
        "INSERT INTO api_token (tenant_id, name, sha256, scopes, networks, created_at, expires_at)"
        " VALUES (%s, %s, %s, %s, %s, coalesce(%s, now()), %s)",
        (DEFAULT_TENANT, token.name, token.sha256, list(token.scopes), list(token.networks), token.created_at,
         token.expires_at),
    )  # fmt: skip


def list_tokens(database: Database) -> list[Token]:
    """Every token, by name."""
    with database.transaction() as connection:
        rows: list[Row] = connection.execute(f"{_SELECT} ORDER BY name".encode()).fetchall()
    return [Token.of(row) for row in rows]


def token_of(database: Database, sha256: str) -> Token | None:
    """The token whose secret has this digest (hexadecimal); None if there is none, or it has expired."""
    with database.lent_connection() as connection:
        row = connection.execute(
            f"{_SELECT} WHERE sha256 = %s AND (expires_at IS NULL OR expires_at > now())".encode(), (sha256,)
        ).fetchone()
    return Token.of(row) if row is not None else None


def token_named(database: Database, name: str) -> Token:
    """The token of a name. Raise NotFound."""
    for token in list_tokens(database):
        if token.name == name:
            return token
    raise NotFound(f"There is no token {name}. `pacs token list` shows them.")


def remove_token(database: Database, name: str) -> None:
    """Forget a token."""
    with database.transaction() as connection:
        connection.execute("DELETE FROM api_token WHERE tenant_id = %s AND name = %s", (DEFAULT_TENANT, name))
