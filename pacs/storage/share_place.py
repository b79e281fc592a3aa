"""The place of a volume on a share: found empty or a volume, made one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pacs.errors import PacsError, SettingsError
from pacs.storage.kinds import Kind
from pacs.storage.share_mount import require_share
from pacs.storage.share_pool import pool_of
from pacs.storage.volume import VolumeIdentity


def identity_at(kind: Kind, location: str, options: Mapping[str, Any]) -> VolumeIdentity | None:
    """The identity of the volume on a share; None if the share is empty. Raise UsageError if it is neither."""
    found = _ask_raw(kind, location, options, "identity_at")
    return None if found is None else identity_of(found)


def make_at(kind: Kind, location: str, options: Mapping[str, Any], role: str, appliance_id: str) -> VolumeIdentity:
    """Make an empty share a volume."""
    return identity_of(_ask_raw(kind, location, options, "make", role=role, appliance_id=appliance_id))


def unmake_at(kind: Kind, location: str, options: Mapping[str, Any]) -> None:
    """Leave a share that was made a volume a moment ago as it was found."""
    with contextlib.suppress(PacsError):
        _ask_raw(kind, location, options, "unmake")


def _ask_raw(kind: Kind, location: str, options: Mapping[str, Any], call: str, **words: Any) -> Any:
    require_options(options)
    require_share(kind, Path(location), bool(options.get("any_file_system")))
    with pool_of(location, options).raw_process() as process:
        return process.ask(call, **words)


def require_options(options: Mapping[str, Any]) -> None:
    """Raise SettingsError unless these are options of a share: timeout_s (30), any_file_system (false).

    What was mounted when it was added (source, type) is noted there too.
    """
    for name, value in options.items():
        is_time = name == "timeout_s" and type(value) in (int, float) and value > 0
        is_choice = name == "any_file_system" and isinstance(value, bool)
        if not (is_time or is_choice or name in ("source", "type")):
            raise SettingsError(f"A share has no option {name} = {value!r}. It knows timeout_s and any_file_system.")


def identity_of(found: Mapping[str, Any]) -> VolumeIdentity:
    """The identity that a share process found."""
    return VolumeIdentity(**{**found, "roles": tuple(found["roles"])})
