"""The settings table: every setting with its default, its meaning and its unit.

A value comes from the environment (`PACS_<NAME>`), else from `config/pacs.toml` in the data directory, else from
here. The defaults are those of `pacs dev`; the appliance sets its own in /etc/pacs/appliance.env.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as EnvironmentFault

from pacs.errors import SettingsError

#: The default character repertoire without backslash and control characters, no space at the ends (PS3.5 Table 6.2-1).
AE_TITLE = r"^[!-\[\]-~]([ -\[\]-~]*[!-\[\]-~])?$"
_UID = r"^[0-9]+(\.[0-9]+)*$"


class Settings(BaseSettings):
    """One instance's settings. Read-only; a change takes a restart of its services."""

    model_config = SettingsConfigDict(env_prefix="PACS_", frozen=True, extra="forbid")

    data: Path = Field(description="The data directory: identity, settings, journal, cluster.")
    database: str = Field(default="", description="libpq connection string; empty: the private cluster in the data.")
    tier1: Path | None = Field(default=None, description="Root of the tier 1 volume; default DATA/tier1.")
    tier2: Path | None = Field(default=None, description="Root of the tier 2 volume; default DATA/tier2.")
    ae_title: str = Field(default="PACS", max_length=16, pattern=AE_TITLE, description="Called AE title.")
    any_device_from_loopback: bool = Field(
        default=False, description="Take associations of unknown devices from this machine. `pacs dev` sets it."
    )
    extra_transfer_syntaxes: tuple[Annotated[str, Field(pattern=_UID)], ...] = Field(
        default=(), description="UIDs of private transfer syntaxes to take, beside all of PS3.6."
    )
    receivers: int = Field(
        default=2, ge=1, le=8, description="Processes of `pacs dev` that receive; the appliance's are systemd's."
    )
    associations_max: int = Field(default=64, ge=1, description="Associations at once, in all receivers.")
    pdu_size_bytes_max: int = Field(default=262144, ge=4096, description="Largest PDU that is asked for.")
    network_timeout_s: float = Field(
        default=60, gt=0, description="How long a peer may take to send a PDU, to read one, or to answer [s]."
    )
    idle_timeout_s: float | None = Field(
        default=None,
        gt=0,
        description="An association without a message for this long is aborted [s]; default: network_timeout_s.",
    )
    artim_s: float = Field(
        default=30, gt=0, description="How long a connection may take to ask for an association, TLS included [s]."
    )
    connections_per_address_max: int = Field(
        default=96, ge=1, description="Connections at once from one address, in one receiver."
    )
    tls_client_certificate: Literal["none", "optional", "required"] = Field(
        default="optional",
        description="Certificates of DICOM TLS clients: not asked for, looked at if trusted.pem is "
        "there, or demanded of all.",
    )
    user_identity: Literal["optional", "required"] = Field(
        default="optional", description="Whether an association needs a user name and passcode (over TLS)."
    )
    commitment_retry_s: float = Field(
        default=7 * 86400, gt=0, description="How long a storage commitment's report is tried [s]."
    )
    commitment_keep_s: float = Field(
        default=30 * 86400, ge=0, description="How long a reported storage commitment is shown [s]."
    )
    object_size_bytes_max: int = Field(default=16 << 30, ge=1 << 20, description="The largest object taken.")
    retrieve_progress_s: float = Field(
        default=0.5, ge=0, description="How often a C-GET or C-MOVE is told how far it is; 0: after each object."
    )
    transcode_size_bytes_max: int = Field(
        default=256 << 20, ge=1 << 20, description="The largest object, uncompressed, whose pixels are transcoded."
    )
    transcode_at_once: int = Field(default=1, ge=1, description="Objects transcoded at once, in one receiver.")
    database_timeout_s: float = Field(
        default=30, gt=0, description="How long a receiver waits for a statement; then the device is told to try again."
    )
    http_socket: Path | None = Field(default=None, description="Unix socket of the web service; else a loopback port.")
    accel_root: Path | None = Field(
        default=None,
        description="nginx sends whole objects of volumes below this folder itself (X-Accel-Redirect); default: none.",
    )
    stow_size_bytes_max: int = Field(
        default=64 << 30, ge=1 << 20, description="The largest request of STOW-RS, all of its objects together."
    )
    stow_at_once: int = Field(default=4, ge=1, description="Requests of STOW-RS taken at once; others wait their turn.")
    settle_s: float = Field(default=300, ge=0, description="A study without news for this long is settled.")
    tier1_high_percent: float = Field(default=80, gt=0, le=100, description="Tier 1 moves down when it is this full.")
    tier1_low_percent: float = Field(default=70, ge=0, le=100, description="... until it is this full.")
    tier_interval_s: float = Field(default=60, gt=0, description="How often the worker looks at the tiers [s].")
    move_grace_s: float = Field(
        default=600, ge=0, description="How long the file of a copy that has moved stays for its readers [s]."
    )
    recall_tier: Literal[1, 2] = Field(
        default=2, description="The tier that studies of tier 3 come back to; the other one where it has no room."
    )
    recall_keep_s: float = Field(
        default=7 * 86400, ge=0, description="A recalled study does not go back to tier 3 for so long [s]."
    )
    recall_priors_max: int = Field(
        default=2, ge=0, description="Earlier studies of tier 3 that come back with a recalled one, each."
    )
    recall_priors_days: float = Field(
        default=5 * 365, ge=0, description="... if they are at most so much older than it [days]."
    )
    state_reserve_bytes: int | None = Field(
        default=None,
        ge=0,
        description="Room kept free for the database: with less, new objects are refused. Default: the database's "
        "max_wal_size and 512 MiB, at most a quarter of the volume (docs/operate/disk-full.md).",
    )
    forecast_warning_days: float = Field(
        default=60, ge=0, description="`pacs check` warns when a disk is full in fewer days than this."
    )
    forecast_critical_days: float = Field(default=14, ge=0, description="... and is critical from this on.")
    recovery_point_s: float = Field(
        default=120, ge=1, description="How often a recovery point is made in each repository, if anything changed [s]."
    )
    backup_log_bytes_max: int | None = Field(
        default=None,
        ge=32 << 20,
        description="How much of the database's log waits for repositories that are away, before it is dropped and a "
        "new backup made on their return. Default: half of what the state's volume has beyond its reserve.",
    )
    scrub_period_days: float = Field(
        default=90, gt=0, description="How often every copy is read again and compared with its digest [days]."
    )
    scrub_rate_mb_s: float = Field(
        default=50, ge=0, description="At most so much is read by the scrub, written by a repair [MB/s]; 0: no limit."
    )
    drill_nights: int = Field(
        default=30, ge=1, description="In so many nights the drill takes every object from the repository once."
    )
    drill_size_bytes_max: int = Field(
        default=50_000_000_000,
        ge=0,
        description="... but at most so much a night; the rest comes the nights after. 0: no limit.",
    )
    standby_answer: Literal["off", "wait-or-refuse", "wait-or-degrade"] = Field(
        default="off",
        description="Whether an object is acknowledged only when the standby has it too, and what happens while that "
        "is away: the device is told to send again (0xA700), or it is acknowledged with an alarm.",
    )
    standby_answer_s: float = Field(default=10, gt=0, description="How long the standby may take for that [s].")
    alert_reminder_s: float = Field(
        default=86400, ge=300, description="How often the same matter is told of again, until it is over [s]."
    )
    ups: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+(@[A-Za-z0-9.:_-]+)?$")], ...] = Field(
        default=(), description="The UPS that `pacs check` asks, as NUT names them: ups@localhost."
    )
    audit_keep_days: float = Field(
        default=10 * 365, ge=1, description="How long the audit log is kept (docs/operate/audit.md) [days]."
    )
    audit_mail: Literal["hourly", "daily", "off"] = Field(
        default="hourly", description="How often the audit log's head goes to those who get the appliance's mails."
    )
    audit_syslog: str = Field(
        default="",
        pattern=r"^$|^[^\s:]+(:[0-9]+)?$|^\[[0-9a-fA-F:]+\](:[0-9]+)?$",
        description="HOST or HOST:PORT of the audit record repository that events and heads go to, by syslog over TLS "
        "(RFC 5425); its port is 6514 if none is named.",
    )
    orphan_age_s: float = Field(default=3600, ge=0, description="Reconciliation leaves younger files alone.")

    @property
    def tier1_root(self) -> Path:
        """Root of the volume that receives."""
        return self.tier1 or self.data / "tier1"

    @property
    def tier2_root(self) -> Path:
        """Root of the volume that settled studies move to."""
        return self.tier2 or self.data / "tier2"

    @property
    def runtime_folder(self) -> Path:
        """Sockets and locks of the running instance: nothing that must outlive it."""
        return self.http_socket.parent if self.http_socket else self.data / "run"

    @property
    def tls_folder(self) -> Path:
        """Key, certificate and trusted certificates for DICOM TLS."""
        return self.data / "identity" / "dicom-tls"

    @property
    def idle_s(self) -> float:
        """How long an association may be without a message [s]."""
        return self.idle_timeout_s or self.network_timeout_s

    @property
    def conninfo(self) -> str:
        """libpq connection string of the index."""
        return self.database or f"host={self.data / 'run'} dbname=pacs user=pacs"


def load(data: Path, **given: Any) -> Settings:
    """The settings of the instance in `data`. `given` stand above all others.

    Raise SettingsError that names the setting, its value's fault and the file.
    """
    path = data / "config" / "pacs.toml"
    try:
        from_file = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        from_file = {}
    except (OSError, ValueError) as error:  # no TOML, or no UTF-8
        raise SettingsError(f"{path} cannot be read: {error}. Correct it, or remove it for the defaults.") from error
    # pydantic-settings ranks what is passed above the environment; the file must rank below it.
    from_file = {name: value for name, value in from_file.items() if f"PACS_{name.upper()}" not in os.environ}
    try:
        return Settings(**{**from_file, "data": data, **given})
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise SettingsError(f"Settings cannot be used ({faults}). Correct {path} or the PACS_ environment.") from error
    except EnvironmentFault as error:
        raise SettingsError(f"Settings cannot be used ({error}). Correct the PACS_ environment.") from error


def reference() -> str:
    """The settings table as Markdown, for docs/reference/settings.md."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.is_required() else repr(field.default)
        lines.append(f"| `{name}` | {f'`{default}`' if default else ''} | {field.description} |")
    return "\n".join(lines) + "\n"
