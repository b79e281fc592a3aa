"""`pacs audit`: who saw, sent, changed and deleted what; and whether the log of it is as it was written.

To read the log is an event of the log.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from pacs.cli.context import acting_as_owner, data_of
from pacs.cli.instance import open_instance
from pacs.errors import DigestMismatch, NotFound, PacsError, UsageError
from pacs.model.audit import KINDS, Event, event, words_of
from pacs.model.audit_chain import Head
from pacs.model.audit_message import is_message, message_of
from pacs.net.audit_export import export, receiver_of, source_of
from pacs.settings import load
from pacs.storage.acting import actor
from pacs.storage.audit import AuditLog
from pacs.storage.audit_verify import Verdict, verify
from pacs.storage.kinds import Volume

audit = typer.Typer(no_args_is_help=True, help="The audit log: who saw, sent, changed, deleted what.")

AsJson = Annotated[bool, typer.Option("--json", help="Print the lines as they stand.")]
When = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])]


@audit.command("show")
def audit_show(
    context: typer.Context,
    number: Annotated[int | None, typer.Argument(help="A line's number; without it the newest events.")] = None,
    count: Annotated[int, typer.Option(help="How many of the newest.")] = 30,
    xml: Annotated[bool, typer.Option("--xml", help="Print them as messages of PS3.15 A.5.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the newest events, or one."""
    data = data_of(context)
    log = AuditLog(data)
    if number is not None:
        found = [each for each in islice(log.read(number), 1) if each["n"] == number]
        if not found:
            raise NotFound(f"The audit log has no line {number}. `pacs audit show` shows the newest.")
    else:
        found = list(islice((each for each in log.newest_backwards() if is_message(each)), count))[::-1]
    with _reading(data, f"show {number}" if number is not None else f"show the newest {count}"):
        _print(data, found, xml, as_json)


@audit.command("search")
def audit_search(
    context: typer.Context,
    study: Annotated[str, typer.Option(help="Of a study: its Study Instance UID.")] = "",
    patient: Annotated[str, typer.Option(help="Of a patient: its Patient ID.")] = "",
    who: Annotated[str, typer.Option(help="Of somebody: an AE title, address, user or unit.")] = "",
    kind: Annotated[str, typer.Option("--event", help="Of a kind, such as sent, received, query, alert.")] = "",
    since: When = None,
    until: When = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only what failed.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many, the newest.")] = 1000,
    xml: Annotated[bool, typer.Option("--xml", help="Print them as messages of PS3.15 A.5.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the events that say all of this. Times are UTC."""
    if kind and kind not in KINDS:
        raise UsageError(f"There is no event {kind!r}. There are: {', '.join(KINDS)}.")
    bounds = [each.replace(tzinfo=UTC).isoformat() if each else "" for each in (since, until)]

    def fits(each: Event) -> bool:
        at = str(each.get("at"))
        return (
            is_message(each)
            and (not bounds[0] or at >= bounds[0])
            and (not bounds[1] or at < bounds[1])
            and (not kind or each["e"] == kind)
            and (not study or each.get("study") == study)
            and (not patient or each.get("patient") == patient)
            and (not failed or bool(each.get("o")))
            and (not who or any(who in each.get(end, {}).values() for end in ("by", "to", "from")))
        )

    data = data_of(context)
    found = deque((each for each in AuditLog(data).read() if fits(each)), maxlen=limit)
    asked = {"study": study, "patient": patient, "who": who, "event": kind, "since": bounds[0], "until": bounds[1]}
    with _reading(data, f"search {', '.join(f'{name} {value}' for name, value in asked.items() if value)}"):
        _print(data, list(found), xml, as_json)


@audit.command("verify")
def audit_verify(
    context: typer.Context,
    head: Annotated[
        list[str] | None,
        typer.Option(help="A head that was kept elsewhere (a mail, syslog); several times for several."),
    ] = None,
    chain_only: Annotated[bool, typer.Option("--chain-only", help="Do not look at the copies on volumes.")] = False,
) -> None:
    """Find out whether any line was changed, removed, inserted or cut off. Ends with 10, and the line, if one was."""
    data = data_of(context)
    heads = [_head(each) for each in head or ()]
    if chain_only:
        verdict = verify(data, heads)
    else:
        with _volumes(data) as (volumes, why):
            verdict = verify(data, heads, volumes)
        if why:
            verdict.unread.append(f"the volumes: {why}")
    for each in verdict.unread:
        typer.echo(f"not looked at: {each}", err=True)
    problem = _problem(verdict)
    with _reading(data, f"verify: {problem or 'whole'}", 8 if problem else 0):
        if problem:
            raise DigestMismatch(problem)
        _print_verdict(verdict)


@audit.command("head")
def audit_head(context: typer.Context) -> None:
    """Seal what is not sealed yet, and print the head: keep it elsewhere, and give it to `pacs audit verify --head`."""
    from pacs.storage.audit_signing import sign_with

    data = data_of(context)
    log = AuditLog(data)
    with acting_as_owner(data):
        log.seal(sign_with(data))
    typer.echo(str(log.head() or "nothing is in the audit log yet"))


@audit.command("export")
def audit_export(
    context: typer.Context,
    syslog: Annotated[
        str, typer.Option(help="HOST or HOST:PORT of an audit record repository, by syslog over TLS (RFC 5425).")
    ] = "",
    file: Annotated[Path | None, typer.Option(help="A file that is not there yet; or - for standard output.")] = None,
    first: Annotated[int, typer.Option("--from", help="To a file: from this line on.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Send the events to an audit record repository, from where the last export to it ended; or all into a file."""
    data = data_of(context)
    settings, log = load(data), AuditLog(data)
    if bool(syslog) == (file is not None):
        raise UsageError("Where to? Give --syslog HOST:PORT or --file FILE.")
    if syslog:
        receiver = receiver_of(settings, syslog)
        with acting_as_owner(data), _reading(data, f"export to {receiver}"):
            count = export(settings, log, receiver)
        typer.echo(f"{count} events went to {receiver}.")
        return
    assert file is not None
    source = source_of(settings)
    with _reading(data, f"export to a file from line {first} on"), _target(file) as target:
        for each in log.read(first):
            if as_json:
                target.write(json.dumps(each, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")
            elif is_message(each):
                target.write(message_of(each, source) + b"\n")


@contextmanager
def _target(file: Path) -> Iterator[Any]:
    if str(file) == "-":
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    try:
        with file.open("xb") as target:
            yield target
    except FileExistsError:
        raise UsageError(f"{file} is there already. Name another file.") from None
    except OSError as error:
        raise UsageError(
            f"{file} cannot be written: {error.strerror}. `pacs` writes as its service; try `-`."
        ) from error


@contextmanager
def _reading(data: Path, what: str, outcome: int = 0) -> Iterator[None]:
    """That the log is read is written before any of it is shown. If it cannot be, that is said, and it is shown."""
    try:
        AuditLog(data).append([event("log used", actor(), outcome, text=what)])
    except PacsError as error:
        typer.echo(f"pacs: that the audit log is read is not in it: {error}", err=True)
    yield


@contextmanager
def _volumes(data: Path) -> Iterator[tuple[list[Volume], str]]:
    """The volumes that have copies; or why they cannot be looked at: the database need not be there."""
    try:
        opened = open_instance(data)
        instance = opened.__enter__()
    except PacsError as error:
        yield [], str(error)
        return
    try:
        yield instance.volumes.all(), ""
    finally:
        opened.__exit__(None, None, None)


def _head(text: str) -> Head:
    try:
        return Head.parse(text)
    except ValueError:
        raise UsageError(f"{text!r} is no head. It is a number, a colon and 64 hexadecimal digits.") from None


def _problem(verdict: Verdict) -> str:
    fault = verdict.chain.fault
    if fault is not None:
        return f"Line {fault.number} ({fault.where}) {fault.problem}. See docs/operate/audit.md."
    if verdict.differing:
        return f"A copy says otherwise. {'; '.join(verdict.differing)}. See docs/operate/audit.md."
    return ""


def _print_verdict(verdict: Verdict) -> None:
    chain = verdict.chain
    typer.echo(f"whole: lines {chain.first} to {chain.last}, {chain.signed} seals signed with the archive's key")
    typer.echo(f"head {chain.head or '-'}; {chain.unsealed} lines after it are not sealed yet")
    typer.echo(f"{len(chain.met)} heads that were kept elsewhere fit; {verdict.copies} copies on volumes say the same")


def _print(data: Path, found: list[Event], xml: bool, as_json: bool) -> None:
    source = source_of(load(data)) if xml else None
    for each in found:
        if as_json:
            typer.echo(json.dumps(each, ensure_ascii=False))
        elif source is not None:
            if is_message(each):
                typer.echo(message_of(each, source).decode())
        else:
            typer.echo(f"{each['n']:>8} {str(each['at'])[:19]} {words_of(each)}")
