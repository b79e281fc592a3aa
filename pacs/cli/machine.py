"""`pacs machine`: the appliance's disks, keys, firewall and screen. Runs as root, early in the boot.

Also a program of its own (`python -m pacs.cli.machine`): the units of the boot path call it so, and need nothing of
the service's libraries. So this module, and cli/firewall, import pacs.machine and no more.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from pacs import __version__, clock, log
from pacs.cli import locks, machine_certificates, machine_settings
from pacs.cli.firewall import firewall
from pacs.cli.updates import update
from pacs.errors import PacsError, UsageError, VolumeError
from pacs.machine import access as keys
from pacs.machine import disk as disks
from pacs.machine import encrypting, kept_settings, settling, shares, slot_writing, slots
from pacs.machine import identity as identities
from pacs.machine import screen as display
from pacs.machine import smart as smart_report
from pacs.machine import storage as volumes
from pacs.machine import trial as trials
from pacs.machine import ups as power
from pacs.machine.applying import SERVICE_ADDRESS
from pacs.machine.commands import MachineError, run
from pacs.machine.machine_settings import Effect
from pacs.storage import durable
from pacs.storage.upgrade_record import UpgradeFiles

log_ = logging.getLogger(__name__)

_TRIAL = Path("/") / slot_writing.TRIAL_FILE

machine = typer.Typer(
    help="The appliance's disks, keys, settings, firewall and screen.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
machine.add_typer(firewall, name="firewall")
machine_settings.register(machine)
machine.command()(update)
locks.register(machine)
machine_certificates.register(machine)


@machine.command()
def storage() -> None:
    """Claim blank disks on the first boot, adopt and mount volumes."""
    answer = volumes.start(volumes.Places())
    for line in (*answer.problems, *answer.notes, *(f"Offered: {path}" for path, _ in answer.offered)):
        typer.echo(line)
    if not answer.ready:
        raise VolumeError("The storage is not ready; nothing else starts. The screen says what to do.")


@machine.command()
def claim(
    devices: Annotated[list[str], typer.Argument(help="Blank disks or RAIDs: /dev/md/state /dev/md/archive.")],
) -> None:
    """On a machine without volumes: make them of these disks. The smallest is the state's, then tier 1, tier 2."""
    answer = volumes.claim_named(volumes.Places(), devices)
    for line in (*answer.problems, *answer.notes):
        typer.echo(line)
    if not answer.ready:
        raise VolumeError("The disks were not claimed.")
    typer.echo("Claimed. Restart the machine: `sudo systemctl reboot`.")


@machine.command()
def grow() -> None:
    """Let every volume fill its disk, if that was enlarged in the hypervisor. Nothing stops for it."""
    grown, problems = volumes.grow(volumes.Places())
    for device in grown:
        typer.echo(f"{device}: the disk has grown, and its volume with it.")
    if problems:
        raise MachineError(" ".join(problems))


@machine.command()
def smart() -> None:
    """Ask every disk how it is (SMART), and write it down for `pacs check`."""
    disks_asked = smart_report.write(smart_report.REPORT)
    typer.echo(f"{disks_asked} disks have SMART.")


@machine.command("watch-ups", hidden=True)
def watch_ups() -> None:
    """As long as the UPS has no power: shut down at the charge that the settings name."""
    values = machine_settings.this_machine().kept().of_effect(Effect.MACHINE)
    if name := power.named(values):
        power.watch(name, int(values["ups_shutdown_charge"]))


@machine.command()
def access() -> None:
    """Have host keys and administrators' keys for SSH."""
    try:
        keys.prepare(keys.Keys(), _state())
    except (PacsError, OSError) as error:
        # An administrator must get in most of all when the state volume is in trouble.
        typer.echo(f"The keys on the state volume cannot be used, others serve until the next boot: {error}", err=True)
        keys.prepare(keys.Keys(), None)


@machine.command()
def identity() -> None:
    """Have the TLS keys and the database's cluster, made on the first boot."""
    state = _state()
    if state is None:
        raise VolumeError("The storage is not ready. See: systemctl status pacs-storage")
    identities.make_tls(state / "identity/tls", socket.gethostname())
    identities.make_dicom_tls(state / "identity/dicom-tls", socket.gethostname(), "pacs")
    identities.make_cluster(state / "postgresql")
    identities.look_back(state, volumes.Places().volumes)


@machine.command("settle-upgrade")
def settle_upgrade() -> None:
    """Before the database starts: whether this version may use the data, and where an upgrade stands."""
    state = _state()
    if state is None:
        raise VolumeError("The storage is not ready. See: systemctl status pacs-storage")
    refusal, mark = Path("/run/pacs-machine/refusal"), Path("/run/pacs-machine/trial")
    cluster = state / "postgresql" / str(identities.POSTGRESQL_VERSION) / "main"
    try:
        on_trial = settling.Settling(state, cluster, settling.this_system(_version()), _boot()).settle()
    except PacsError as error:
        durable.replace_file(refusal, f"{error}\n".encode(), 0o644)
        raise
    refusal.unlink(missing_ok=True)
    if on_trial:
        mark.touch()
        run("systemctl", "--no-block", "start", "pacs-trial.service")


@machine.command("trial")
def watch_trial() -> None:
    """On a new version's first boot: pass it when its selftest passes, else restart into the one before."""
    state, pacs = volumes.Places().state, str(Path(sys.executable).with_name("pacs"))
    told, files = trials.read(_TRIAL), UpgradeFiles(state)

    def ask() -> trials.Outcome:
        from pacs.backup.standby_files import StandbyFiles  # on a trial only; each time, as the volumes may come late

        return trials.ask_standby(pacs) if StandbyFiles(state).following() else trials.ask_selftest()

    try:
        outcome = trials.watch(told.limit_s, trials.boot_goes_on, ask)
        if outcome.passed:
            trials.pass_it(files, slots.GrubEnvironment(), _boot().slot, settling.this_system(_version()))
            return
        why = outcome.why
    except Exception as error:  # whatever keeps it from being passed: the version before knows how to go on
        log_.exception("the trial cannot go on")
        why = f"the trial could not go on ({type(error).__name__}: {error})"
    trials.give_up(files, why)
    trials.restart()


@machine.command("forget-upgrade")
def forget_upgrade() -> None:
    """Remove the copy of the database that an upgrade has kept, when it is a week old."""
    state = _state()
    if state is not None and settling.forget_old(UpgradeFiles(state), clock.now()):
        typer.echo("The copy of the database from before the last upgrade is removed.")


@machine.command()
def screen() -> None:
    """Put the state of things on the display."""
    pacs = str(Path(sys.executable).with_name("pacs"))
    places = volumes.Places()
    facts = display.gather(_version(), volumes.read_answer(places), pacs, places.state)
    display.note_trial(facts.trial)
    display.show(display.compose(facts))


@machine.command("add-disk")
def add_disk(
    device: Annotated[str, typer.Argument(help="A blank disk: /dev/sdd. The screen shows which there are.")],
    name: Annotated[str, typer.Argument(help="A name for it: 1 to 11 small letters, digits and hyphens.")],
    encrypt: Annotated[
        bool | None, typer.Option("--encrypt/--plain", help="Else as the machine's setting encrypt_volumes says.")
    ] = None,
) -> None:
    """Make a file system on a blank disk and mount it, now and at every start."""
    if encrypt is None:
        encrypt = kept_settings.load(volumes.Places().state).value(encrypting.NAME) != "off"
    where = disks.add(volumes.Places(), device, name, encrypt)
    typer.echo(f"{device} is mounted at {where}. Give it to the archive: pacs volume add {name} {where} --tier 2")


@machine.command()
def mount(
    name: Annotated[str, typer.Argument(help="A name for it: 1 to 11 small letters, digits and hyphens.")],
    source: Annotated[str, typer.Argument(help="NFS: server:/folder. SMB: //server/share.")],
    option: Annotated[list[str] | None, typer.Option("--option", "-o", help="An option of mount(8).")] = None,
    credentials_file: Annotated[
        Path | None, typer.Option(help="For SMB: a file with username=, password= and domain=; it is copied.")
    ] = None,
) -> None:
    """Mount a share of a NAS or file server, now and at every start, also on a new system disk."""
    try:
        credentials = credentials_file.read_bytes() if credentials_file else None
    except OSError as error:
        raise UsageError(f"{credentials_file} cannot be read: {error.strerror}.") from error
    where = shares.add(volumes.Places(), shares.checked(name, source, option or []), credentials)
    typer.echo(f"{source} is mounted at {where}. Give it to the archive: pacs volume add {name} {where} --tier 2")


@machine.command()
def unmount(name: Annotated[str, typer.Argument(help="Of a share: `pacs machine mounts` shows them.")]) -> None:
    """Unmount a share and forget it. Nothing on the server is touched."""
    shares.remove(volumes.Places(), name)
    typer.echo(f"{name} is not mounted any more, and will not be.")


@machine.command()
def mounts(
    again: Annotated[bool, typer.Option("--again", help="Try those that are not mounted once more.")] = False,
) -> None:
    """Show the shares that are to be mounted, and whether they are."""
    places = volumes.Places()
    if again:
        for note in shares.mount_known(places):
            typer.echo(note, err=True)
        return
    for share in shares.known(places):
        state = "mounted" if shares.is_mounted(places, share) else "not mounted, tried again every minute"
        typer.echo(f"{share.name}  {share.source}  {places.volumes / share.name}  {state}")


@machine.command()
def forget(
    role: Annotated[str, typer.Argument(help="tier1 or tier2: a volume that was claimed on the first boot.")],
    lost: Annotated[bool, typer.Option("--lost", help="Its disk is lost, and will not come back.")] = False,
) -> None:
    """Have the machine start without a disk that was emptied (`pacs volume retire`), or that is lost."""
    disks.forget(volumes.Places(), role, lost)
    typer.echo(f"This machine starts without {role} from now on. Shut it down, and take its disk away.")


@machine.command()
def choose(appliance_id: Annotated[str, typer.Argument(help="The id that the screen shows.")]) -> None:
    """Say which of several sets of volumes this machine takes when it starts next."""
    volumes.choose(volumes.Places(), appliance_id)
    typer.echo("Chosen. Restart the machine for it to count.")


@machine.command("service-address")
def service_address() -> None:
    """Have the address that this machine and its standby share, while it is the archive: what systemd runs."""
    from pacs.cli import systemd  # here, with what it needs: the boot path needs none of it
    from pacs.machine.service_address import keep

    keep(volumes.Places().state, Path("/") / SERVICE_ADDRESS, systemd.stop_on_signals(), systemd.notify)


def _version() -> str:
    return os.environ.get("PACS_APPLIANCE_VERSION", __version__)


def _boot() -> settling.Boot:
    """How this machine was booted; as far as it can be told, where the system disk has no two slots."""
    try:
        slot = slots.find().running.name
    except PacsError:
        return settling.Boot()
    environment = slots.GrubEnvironment()
    try:
        default, once = environment.default, environment.once
    except PacsError:
        default = once = ""
    return settling.Boot(slot, default, once, trials.read(_TRIAL).record_id)


def _state() -> Path | None:
    answer = volumes.read_answer(volumes.Places())
    return volumes.Places().state if answer and answer.ready else None


def main() -> None:
    """The entry point of the boot path's units."""
    log.set_up(to_journal="JOURNAL_STREAM" in os.environ)
    try:
        machine()
    except PacsError as error:
        typer.echo(f"pacs machine: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
