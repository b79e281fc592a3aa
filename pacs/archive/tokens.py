"""Tokens, changed by a person: the journal first, then the index. A token is shown once, when it is made.

A token is 256 bits from the kernel, so that its plain SHA-256 can be kept: nobody finds it by trying, and looking it up
costs a request nothing. People's passwords, which the console's sign-in will have, are another matter.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta

from pacs import clock
from pacs.errors import UsageError
from pacs.index import tokens as rows
from pacs.index.database import Database
from pacs.index.tokens import Token
from pacs.model import addresses
from pacs.storage.journal import Journal

#: What a token may be for: to search and retrieve; to store.
SCOPES = ("read", "store")
#: What every token begins with, so that one that leaked into a file is found.
PREFIX = "pacs_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


def digest_of(secret: str) -> str:
    """What is kept of a token: its SHA-256 (hexadecimal)."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def add_token(
    database: Database,
    journal: Journal,
    name: str,
    scopes: Sequence[str],
    networks: Sequence[str] = (),
    days: float | None = None,
) -> tuple[Token, str]:
    """Make a token; return it and its secret, which nobody can find out again. Raise UsageError for what cannot be."""
    if not _NAME.fullmatch(name):
        raise UsageError("A token's name is 1 to 64 letters, digits, dots, dashes and underscores. Give another.")
    if not scopes or not set(scopes) <= set(SCOPES):
        raise UsageError(f"A token is for one or more of: {', '.join(SCOPES)}. Give --scope.")
    if days is not None and not 0 < days < 36500:
        raise UsageError("A token is good for some days, 100 years at most. Correct --days.")
    try:
        where = tuple(dict.fromkeys(addresses.network(each) for each in networks))
    except ValueError as error:
        raise UsageError(f"{error}. A network is written 192.0.2.0/24. Correct it.") from None
    if any(each.name == name for each in rows.list_tokens(database)):
        raise UsageError(f"There is a token {name} already. Take another name, or remove that one first.")
    secret, now = PREFIX + secrets.token_urlsafe(32), clock.now()
    ends = None if days is None else now + timedelta(days=days)
    token = Token(name, digest_of(secret), tuple(dict.fromkeys(scopes)), where, now, ends)
    line = {**asdict(token), "created_at": now.isoformat(), "expires_at": ends.isoformat() if ends else None}
    journal.append("token add", **line)
    with database.transaction() as connection:
        rows.put_token(connection, token)
    return token, secret


def remove_token(database: Database, journal: Journal, name: str) -> None:
    """Forget a token: from the next request on it is refused. Raise NotFound."""
    rows.token_named(database, name)
    journal.append("token remove", name=name)
    rows.remove_token(database, name)
