"""The firewall put into force: names looked up, the ruleset rendered, applied in one transaction, and remembered.

    /var/lib/pacs/firewall/known.json   what each source named last, and which addresses its names had
    /var/lib/pacs/firewall/last.nft     the ruleset that was applied last; in force from the start of the next boot
    /run/pacs-machine/firewall.json     how it went, for `pacs check`

What cannot be asked or looked up now keeps what it had. An address of a name is kept for a day after it was last seen,
as many names have several in turn.
"""

from __future__ import annotations

import hashlib
import json
import pwd
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pacs import clock
from pacs.errors import PacsError
from pacs.machine import firewall_ruleset as ruleset
from pacs.machine.commands import MachineError, output, run
from pacs.machine.firewall_policy import Destination, Named, Openings, Site, openings
from pacs.machine.firewall_ruleset import TABLE, Users
from pacs.machine.firewall_sources import Gathered
from pacs.storage import durable

FORMAT = 1
ADDRESS_KEPT = timedelta(days=1)
#: Where DICOM comes in where systemd cannot be asked.
DICOM_PORTS = (104, 2762, 11112)
_CGROUPS = Path("/sys/fs/cgroup")
_SOCKETS = ("pacs-dicom.socket", "pacs-dicom-tls.socket")

#: Names' addresses; without those that cannot be looked up.
LookUp = Callable[[Sequence[str]], Mapping[str, Iterable[str]]]


@dataclass(frozen=True)
class FirewallFiles:
    """Where it keeps things; tests have their own."""

    kept: Path = Path("/var/lib/pacs/firewall")
    told: Path = Path("/run/pacs-machine/firewall.json")
    site_files: str = ruleset.SITE_FILES

    @property
    def known(self) -> Path:
        return self.kept / "known.json"

    @property
    def last(self) -> Path:
        return self.kept / "last.nft"


@dataclass
class Known:
    """What is remembered: what each source named, and when each address of a name was last seen."""

    named: dict[str, Named] = field(default_factory=dict)
    addresses: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What is in force now: whether it was changed for that, and what is not as it should be."""

    openings: Openings
    changed: bool
    problems: tuple[str, ...]


def apply(
    files: FirewallFiles, site: Site, gathered: Gathered, users: Users, sessions: Sequence[str], look_up: LookUp
) -> Outcome:
    """Put into force what settings and tables name. Raise MachineError if nft does not take it: then all stays."""
    known = read_known(files)
    known.named.update(gathered.named)
    problems = [f"{name} cannot be asked, what it named last stays: {why}" for name, why in gathered.problems.items()]
    problems += refresh(known, look_up, clock.now())
    wanted = openings(site, known.named.values(), known.addresses)
    text = ruleset.render(wanted, users, sessions)
    before = json.loads(files.told.read_text("utf-8")) if files.told.exists() else {}
    wanted_sha256 = hashlib.sha256(text.encode() + _site_content(files)).hexdigest()
    in_force = in_force_sha256()
    changed = before.get("wanted") != wanted_sha256 or before.get("in_force") != in_force
    told: dict[str, Any] = {"wanted": wanted_sha256, "in_force": in_force}
    if changed:
        problems += _load(text, files.site_files)
        told["in_force"] = in_force_sha256()
        durable.make_folders(files.kept)
        # Sessions' slices are not there yet when this is loaded, and then none of it would be.
        durable.replace_file(files.last, ruleset.render(wanted, users).encode(), 0o600)
    elif before.get("site_problem"):
        problems.append(before["site_problem"])
    told["site_problem"] = next((each for each in problems if each.startswith("The site's")), "")
    _keep_known(files, known)
    now = clock.now().isoformat()
    told |= {
        "problems": problems,
        "at": now,
        "problems_since": (before.get("problems_since") or now) if problems else "",
    }
    files.told.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    durable.replace_file(files.told, (json.dumps(told) + "\n").encode())
    files.told.chmod(0o644)  # whatever the umask: `pacs check` reads it as the service's user
    return Outcome(wanted, changed, tuple(problems))


def check(files: FirewallFiles) -> None:
    """Raise MachineError unless what is in force is what was applied last."""
    if not files.told.exists():
        raise MachineError("The firewall was not applied since the start. `systemctl status pacs-firewall`.")
    told = json.loads(files.told.read_text("utf-8"))
    if told["in_force"] != in_force_sha256():
        raise MachineError("Somebody has changed the rules in force. `pacs machine firewall apply` puts ours back.")


def refresh(known: Known, look_up: LookUp, now: datetime) -> list[str]:
    """Look up every name that is known of; forget those that nobody names any more. Return what could not be."""
    problems = []
    hosts = dict.fromkeys(host for each in known.named.values() for host in each.hosts)
    answers = look_up(list(hosts)) if hosts else {}
    kept: dict[str, dict[str, str]] = {}
    for host in hosts:
        seen = known.addresses.get(host, {})
        found = sorted(answers.get(host, ()))
        if found:
            seen = {each: at for each, at in seen.items() if now - datetime.fromisoformat(at) < ADDRESS_KEPT}
            seen |= dict.fromkeys(found, now.isoformat())
        else:
            problems.append(f"The name {host} cannot be looked up: " + ("what it had stays." if seen else "closed."))
        kept[host] = seen
    known.addresses = kept
    return problems


def in_force_sha256() -> str:
    """A digest of the table in force, without what moves by itself; empty if there is none."""
    answer = run("nft", "--json", "--stateless", "list", "table", "inet", TABLE, accept=(0, 1))
    if answer.returncode:
        return ""
    return hashlib.sha256(json.dumps(_settled(json.loads(answer.stdout)), sort_keys=True).encode()).hexdigest()


def _settled(found: Any) -> Any:
    if isinstance(found, list):
        return [_settled(each) for each in found]
    if not isinstance(found, dict):
        return found
    moving: tuple[str, ...] = ("handle", "metainfo")
    if "table" in found and "name" in found and found["name"] not in ruleset.SETS:
        moving = (*moving, "elem")  # of a set that counts connections
    kept = {name: _settled(value) for name, value in found.items() if name not in moving}
    if "table" in found and "elem" in kept:
        kept["elem"] = sorted(kept["elem"], key=json.dumps)  # a set has no order
    return kept


def _load(text: str, site_files: str) -> list[str]:
    """Load a ruleset with what the site has added; without it, if that is what nft does not take."""
    try:
        run("nft", "-f", "-", given=ruleset.with_site_files(text, site_files))
    except MachineError as error:
        run("nft", "-f", "-", given=text)
        return [f"The site's own rules ({site_files}) are not in force: {error} Correct or remove the file."]
    return []


def _site_content(files: FirewallFiles) -> bytes:
    pattern = Path(files.site_files)
    return b"\n".join(path.read_bytes() for path in sorted(pattern.parent.glob(pattern.name)))


def read_known(files: FirewallFiles) -> Known:
    """What is remembered; nothing where it cannot be read, as it is asked for again."""
    try:
        found = json.loads(files.known.read_text("utf-8"))
        if found["format"] != FORMAT:
            return Known()
        named = {name: _named(each) for name, each in found["named"].items()}
        return Known(named, {host: dict(seen) for host, seen in found["addresses"].items()})
    except FileNotFoundError:
        return Known()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Known()


def _named(found: dict[str, Any]) -> Named:
    return Named(
        tuple(Destination(**each) for each in found["calls"]), tuple(found["devices"]), tuple(found["ssh"])
    )  # fmt: skip


def _keep_known(files: FirewallFiles, known: Known) -> None:
    named = {name: asdict(each) for name, each in known.named.items()}
    content = {"format": FORMAT, "named": named, "addresses": known.addresses}
    durable.make_folders(files.kept)
    durable.replace_file(files.known, (json.dumps(content, indent=1) + "\n").encode(), 0o600)


def own_subnets() -> tuple[str, ...]:
    """The subnets this machine has an address in, with those of IPv6 that end at the next router."""
    return subnets_of(json.loads(output("ip", "-json", "address", "show", "up")))


def subnets_of(interfaces: list[dict[str, Any]]) -> tuple[str, ...]:
    """The subnets in what `ip -json address` says, but those of loopback and of tunnels."""
    return tuple(
        f"{one['local']}/{one['prefixlen']}"
        for each in interfaces
        if "LOOPBACK" not in each.get("flags", ()) and "POINTOPOINT" not in each.get("flags", ())
        for one in each.get("addr_info", ())
        if one.get("scope") in ("global", "link")
    )


def dicom_ports() -> tuple[int, ...]:
    """The ports that the appliance's sockets take DICOM on."""
    try:
        said = output("systemctl", "show", "--property=Listen", "--value", *_SOCKETS)
    except PacsError:
        return DICOM_PORTS
    return ports_of(said) or DICOM_PORTS


def ports_of(said: str) -> tuple[int, ...]:
    """The TCP ports in what systemctl says of sockets."""
    return tuple(sorted({int(port) for port in re.findall(r"(?:^|:)(\d+) \(Stream\)", said, re.M)}))


def users(service_uid: int | None) -> Users:
    """The users of this system that call by themselves."""
    return Users(_uid("systemd-resolve"), _uid("_chrony"), service_uid)


def _uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def sessions() -> tuple[str, ...]:
    """The cgroups of administrators' sessions that there are now: by SSH, and on the display.

    None where cgroups of version 2 are not: there sessions cannot be told from services.
    """
    if not (_CGROUPS / "cgroup.controllers").exists():
        return ()
    return tuple(each for each in ("user.slice", "system.slice/system-getty.slice") if (_CGROUPS / each).is_dir())
