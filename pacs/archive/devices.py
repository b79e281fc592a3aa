"""Devices, changed by a person: the journal first, then the index. And those that wait to become known."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from pacs.archive.hosts import Hosts
from pacs.errors import NotFound, UsageError
from pacs.index import devices as rows
from pacs.index import refusals
from pacs.index.database import Database, Row
from pacs.index.devices import Device
from pacs.index.refusals import PENDING_KINDS, RefusalKind
from pacs.model import addresses
from pacs.settings import AE_TITLE
from pacs.storage.journal import Journal

#: The registered port for DICOM (PS3.8 9.1.1): where a device listens whose port nobody has said.
DICOM_PORT = 104


def normalised(device: Device) -> Device:
    """The device with its lists in order and its networks in one spelling. Raise UsageError for what cannot be."""
    titles = tuple(dict.fromkeys(title for title in device.aliases if title != device.ae_title))
    for title in (device.ae_title, *titles, *device.called_ae_titles):
        if len(title) > 16 or not re.fullmatch(AE_TITLE, title, re.ASCII):
            raise UsageError("An AE title is 1 to 16 characters, without backslash, no spaces around it. Correct it.")
    if not 1 <= device.port <= 65535:
        raise UsageError("A port is 1 to 65535. Correct it.")
    for words in (device.name, device.host):
        if not words.strip() or not words.isprintable():
            raise UsageError("A device has a name and a host, of printable characters. Give both.")
    if not addresses.is_host(device.host):
        raise UsageError(f"{device.host} is neither an address nor a host's name. Correct it.")
    try:
        networks = tuple(dict.fromkeys(addresses.network(each) for each in device.networks))
    except ValueError as error:
        raise UsageError(f"{error}. A network is written 192.0.2.0/24. Correct it.") from None
    _require_quirks(device)
    called = tuple(dict.fromkeys(device.called_ae_titles))
    return replace(device, networks=networks, aliases=titles, called_ae_titles=called)


def _require_quirks(device: Device) -> None:
    from pacs.model import text, uids  # here, as they import all of pydicom, and few commands need it

    if device.default_character_set and not text.is_character_set(device.default_character_set):
        raise UsageError(
            f"{device.default_character_set} is no Specific Character Set of PS3.3 C.12.1.1.2. "
            "ISO_IR 100 is Latin-1, ISO_IR 192 is UTF-8."
        )
    if device.pdu_size_bytes_max is not None and device.pdu_size_bytes_max < 4096:
        raise UsageError("A PDU has at least 4096 bytes. Give more, or 0 for the setting's.")
    if device.associations_max is not None and device.associations_max < 1:
        raise UsageError("A device has at least one association. Remove it if it is to have none.")
    for uid in device.transfer_syntaxes:
        if not uids.is_uid(uid):
            raise UsageError(f"{uid} is no UID of a transfer syntax. 1.2.840.10008.1.2.1 is Explicit Little Endian.")
    if device.tls_certificate_sha256 and not re.fullmatch("[0-9a-f]{64}", device.tls_certificate_sha256):
        raise UsageError("A certificate's SHA-256 is 64 hexadecimal digits. `openssl x509 -fingerprint -sha256`.")


def add_device(database: Database, journal: Journal, device: Device) -> Device:
    """Make a device known; return it as it is kept. Raise UsageError if its title, host or another value cannot be."""
    device = normalised(device)
    rows.require_free(database, device)
    journal.append("device add", **asdict(device))
    rows.add_device(database, device)
    _forget_settled(database, device)
    return device


def change_device(database: Database, journal: Journal, device: Device) -> Device:
    """Write a known device anew. Raise NotFound if there is none of its name, UsageError for what cannot be."""
    device = normalised(device)
    rows.device_named(database, device.name)
    rows.require_free(database, device, device.name)
    journal.append("device change", **asdict(device))
    rows.change_device(database, device)
    _forget_settled(database, device)
    return device


def remove_device(database: Database, journal: Journal, name: str) -> None:
    """Forget a device: it can no longer associate. Its studies stay. Raise NotFound if there is none."""
    rows.device_named(database, name)
    journal.append("device remove", name=name)
    rows.remove_device(database, name)


@dataclass(frozen=True)
class Pending:
    """A caller that was refused for what it is: its number, what was wrong, and what it wanted."""

    number: int
    calling_ae: str
    address: str
    called_ae_titles: tuple[str, ...]
    certificates: tuple[str, ...]
    device_name: str
    problems: tuple[str, ...]
    reasons: tuple[str, ...]
    wanted: tuple[str, ...]
    count: int
    first_at: datetime
    last_at: datetime
    is_dismissed: bool
    refusal_keys: tuple[int, ...]


def pending(database: Database, with_dismissed: bool = False) -> list[Pending]:
    """Who was refused and could be accepted, the newest first."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in refusals.list_refusals(database, with_dismissed):
        if row["kind"] in PENDING_KINDS and row["calling_ae"]:  # without one it came no further than TLS
            groups.setdefault((row["calling_ae"], row["address"]), []).append(row)
    return [_pending(group) for group in groups.values()]


def _pending(group: list[Row]) -> Pending:
    newest = group[0]
    return Pending(
        number=min(row["refusal_key"] for row in group),
        calling_ae=newest["calling_ae"],
        address=newest["address"],
        called_ae_titles=_details(group, RefusalKind.CALLED_AE),
        certificates=_details(group, RefusalKind.TLS),
        device_name=next((row["device_name"] for row in group if row["device_name"]), ""),
        problems=_merged([row["kind"]] for row in group),
        reasons=_merged([row["reason"]] for row in group),
        wanted=_merged(row["wanted"] for row in group),
        count=sum(row["count"] for row in group),
        first_at=min(row["first_at"] for row in group),
        last_at=newest["last_at"],
        is_dismissed=all(row["dismissed_at"] for row in group),
        refusal_keys=tuple(row["refusal_key"] for row in group),
    )


def _details(group: list[Row], kind: RefusalKind) -> tuple[str, ...]:
    return tuple(row["detail"] for row in group if row["kind"] == kind)


def _merged(lists: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each for part in lists for each in part))


def pending_numbered(database: Database, number: int) -> Pending:
    """The caller with a number, or with a refusal of that number. Raise NotFound if there is none."""
    for each in pending(database, with_dismissed=True):
        if number in each.refusal_keys:
            return each
    raise NotFound(f"Nobody waits under number {number}. `pacs device pending` shows who does.")


def accept(
    database: Database, journal: Journal, number: int, name: str | None = None, port: int | None = None
) -> Device:
    """Make a caller that was refused known, or let its device do what it was refused for; return the device.

    Raise UsageError if no change of the device would help.
    """
    caller = pending_numbered(database, number)
    if not all(re.fullmatch("[0-9a-f]{64}", each) for each in caller.certificates):
        raise UsageError(f"Accepting it would not help: {' '.join(caller.reasons)}")
    known = rows.device_by_ae_title(database, caller.calling_ae)
    if known is not None and name is not None and name != known.name:
        raise UsageError(f"AE title {caller.calling_ae} is device {known.name}'s already. Accept without --name.")
    device = known or Device(name or caller.calling_ae.lower(), caller.calling_ae, caller.address, port or DICOM_PORT)
    if known is not None and port is not None:
        device = replace(device, port=port)
    if known is not None and not Hosts().may_call_from(known, caller.address):
        device = replace(device, networks=(*device.networks, caller.address))
    device = replace(device, called_ae_titles=(*device.called_ae_titles, *caller.called_ae_titles))
    if caller.certificates:  # the newest that it showed
        device = replace(device, tls_certificate_sha256=caller.certificates[0])
    accepted = (change_device if known else add_device)(database, journal, device)
    refusals.forget(database, caller.refusal_keys)
    return accepted


def dismiss(database: Database, journal: Journal, number: int) -> Pending:
    """Take a caller off the list of those that wait. It stays refused. Raise NotFound if there is none."""
    caller = pending_numbered(database, number)
    for refusal_key in caller.refusal_keys:
        dismiss_refusal(database, journal, refusal_key)
    return caller


def dismiss_refusal(database: Database, journal: Journal, refusal_key: int) -> Row:
    """Take a refusal off the list; return it. Raise NotFound if there is none."""
    row = refusals.refusal(database, refusal_key)
    named = {name: row[name] for name in ("calling_ae", "address", "kind", "detail", "reason")}
    journal.append("refusal dismiss", **named)
    refusals.dismiss(database, [refusal_key])
    return row


def _forget_settled(database: Database, device: Device) -> None:
    """Take callers off the list that would be accepted now."""
    hosts = Hosts()
    for each in pending(database, with_dismissed=True):
        if each.calling_ae not in device.ae_titles or not hosts.may_call_from(device, each.address):
            continue
        if set(each.called_ae_titles) <= set(device.called_ae_titles) and (
            set(each.certificates) <= {device.tls_certificate_sha256}
        ):
            refusals.forget(database, each.refusal_keys)
