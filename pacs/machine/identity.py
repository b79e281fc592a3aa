"""What the state volume gets once and keeps for its life: the TLS keys, and the database's cluster.

Each is made beside its place and then renamed into it, so a loss of power leaves none or a whole one.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from pacs.errors import DataTooNew, PacsError, VolumeError
from pacs.index import rights
from pacs.machine import authority
from pacs.machine.commands import run
from pacs.machine.timeline import begin_if_needed
from pacs.net import certificate_files
from pacs.storage import durable
from pacs.storage.looking_back import look_before_start

log = logging.getLogger(__name__)

POSTGRESQL_VERSION = 17
_PROGRAMS = Path(f"/usr/lib/postgresql/{POSTGRESQL_VERSION}/bin")
# Given to a backend of its own, without a server: nothing listens while they run.
_FIRST_STATEMENTS = (
    "\n".join(("CREATE ROLE pacs LOGIN CREATEDB", "CREATE DATABASE pacs OWNER pacs", *rights.STATEMENTS)) + "\n"
)


def make_tls(folder: Path, host_name: str) -> None:
    """Make key.pem and certificate.pem for HTTPS in folder, issued by the appliance's own authority, unless there are.

    A timer renews it; an operator may put the hospital's own in its place, or have one from an ACME server.
    """
    _make_certificate(folder, host_name, authority.WEB_DAYS, authority.EC)


def make_dicom_tls(folder: Path, host_name: str, owner: str | None = None) -> None:
    """The same for DICOM over TLS, for the user who serves it; RSA, as many devices know nothing else."""
    _make_certificate(folder, host_name, authority.DICOM_DAYS, authority.RSA, owner)


def _make_certificate(folder: Path, host_name: str, days: int, kind: tuple[str, ...], owner: str | None = None) -> None:
    if folder.exists():
        certificate_files.end(folder)
        return
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700, parents=True)
    own = authority.folder_beside(folder)
    # Without an owner it is `pacs dev`, which starts often and is called by no old device: a key that is made at once.
    authority.have(own, authority.RSA if owner or kind == authority.EC else authority.EC)
    key = unfinished / "key.pem"
    authority.issue(own, (host_name, "pacs", "localhost"), days, key, unfinished / "certificate.pem", kind)
    key.chmod(0o600)
    if owner is not None:
        for path in (*unfinished.iterdir(), unfinished):
            shutil.chown(path, owner, owner)
    _put_in_place(unfinished, folder)


def make_cluster(folder: Path) -> None:
    """Make the database's cluster at folder/<version>/main, with role and database `pacs`, unless it is there.

    Raise DataTooNew if a later PostgreSQL's cluster is there, VolumeError if only an earlier one's is: in neither
    case may an empty cluster take its place.
    """
    target = folder / str(POSTGRESQL_VERSION) / "main"
    if target.exists():
        return
    _refuse_other_versions(folder)
    unfinished = target.with_name("main.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    target.parent.mkdir(mode=0o700, exist_ok=True)
    shutil.chown(target.parent, "postgres", "postgres")
    as_postgres = ("runuser", "-u", "postgres", "--")
    run(
        *as_postgres,
        str(_PROGRAMS / "initdb"),
        "--locale=C",
        "--encoding=UTF8",
        "--data-checksums",
        "--auth-local=peer",
        "--auth-host=reject",
        "--username=postgres",
        "--no-instructions",
        "-D",
        str(unfinished),
    )
    single = (*as_postgres, str(_PROGRAMS / "postgres"), "--single", "-D", str(unfinished), "-c", "exit_on_error=on")
    run(*single, "postgres", given=_FIRST_STATEMENTS)
    run(*as_postgres, str(_PROGRAMS / "initdb"), "--sync-only", "-D", str(unfinished))
    _put_in_place(unfinished, target)
    durable.fsync_folder(folder)


def look_back(state: Path, tiers: Path) -> None:
    """Whether a disk went back in time, before the database writes anything: then its log goes on on a new timeline.

    That this cannot be told is no reason not to start: the worker looks again.
    """
    cluster = state / "postgresql" / str(POSTGRESQL_VERSION) / "main"
    if (cluster / "standby.signal").exists():  # its disks are written by the archive, whose marks they carry
        return
    try:
        notice = look_before_start(state, (tiers / "tier1", tiers / "tier2"))
        begin_if_needed(state, notice, cluster, _PROGRAMS)
    except (PacsError, OSError):
        log.exception("it cannot be told whether a disk went back in time")


def _refuse_other_versions(folder: Path) -> None:
    versions = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit() and (path / "main").exists())
    if versions and versions[-1] > POSTGRESQL_VERSION:
        raise DataTooNew(
            f"The database was written by PostgreSQL {versions[-1]}; this version has {POSTGRESQL_VERSION}. Nothing "
            "was touched. Boot the image that wrote it, or a newer one."
        )
    if versions:
        raise VolumeError(
            f"The database was written by PostgreSQL {versions[-1]}, and this version has {POSTGRESQL_VERSION} only. "
            "Boot the image that wrote it, back up, and restore onto this one."
        )


def _put_in_place(unfinished: Path, target: Path) -> None:
    for path in unfinished.iterdir():
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            try:
                durable.fsync_fd(fd)
            finally:
                os.close(fd)
    durable.fsync_folder(unfinished)
    unfinished.rename(target)
    durable.fsync_folder(target.parent)
