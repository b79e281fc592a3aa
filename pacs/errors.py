"""The error tree. Each class carries the code it has on every way out of the service.

`status` is the DIMSE status (PS3.7 Annex C, PS3.4 B.2.3), `http` the HTTP status, `exit_code` the exit code of
`pacs`. A message to an operator says what is wrong and ends with what to do; it never holds a patient's data.
"""

from __future__ import annotations

from collections.abc import Mapping


class PacsError(Exception):
    """Something went wrong that nobody foresaw. Send the log to the maintainers."""

    status = 0x0110  # Processing failure, PS3.7 C.5.14
    http = 500
    exit_code = 1

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class UsageError(PacsError):
    """The command's words are off. See `pacs --help`."""

    http = 400
    exit_code = 2


class Unauthenticated(UsageError):
    """It is not known who asks. Send a token of `pacs token add` as `Authorization: Bearer …`."""

    http = 401


class Forbidden(UsageError):
    """The token does not allow this. Make one with the scope that it needs: `pacs token add --scope`."""

    http = 403


class TooLarge(UsageError):
    """The request is larger than this archive takes. Send it in parts."""

    http = 413


class NotAcceptable(UsageError):
    """None of the media types that were asked for can be given. See docs/reference/dicomweb.md."""

    http = 406


class UnsupportedMediaType(UsageError):
    """A body of this media type is not taken. See docs/reference/dicomweb.md."""

    http = 415


class SettingsError(PacsError):
    """A setting has a value that cannot be used. Correct it in config/pacs.toml or the environment."""

    exit_code = 3


class CannotUnderstand(PacsError):
    """The data set cannot be read. Ask the sending device's maker for a correct one."""

    status = 0xC000  # Cannot understand, PS3.4 Table B.2-1
    http = 400


class DataSetDoesNotMatch(PacsError):
    """The data set's SOP class or instance is not the one its message names. Check the sending device."""

    status = 0xA900  # Data Set does not match SOP Class, PS3.4 Table B.2-1
    http = 409


class TryAgainLater(PacsError):
    """The archive cannot take or give this now, and may in a while. The sender should try again."""

    status = 0xA700  # Out of resources, PS3.4 Table B.2-1: modalities keep the image and send it again
    http = 503
    exit_code = 4


class VolumeFull(TryAgainLater):
    """The volume has no room left. Enlarge its disk, or lower the low mark so that more moves to tier 2."""

    http = 507


class VolumeFailed(TryAgainLater):
    """The volume refused a write. Look at its disk, and at the kernel's log."""


class PathTaken(VolumeFailed):
    """Another file has this path already, and a path is used once. Run `pacs reconcile run`."""


class DatabaseUnavailable(TryAgainLater):
    """The database does not answer. See `systemctl status postgresql@17-main`."""


class Fenced(TryAgainLater):
    """Another node has taken over this archive: this one changes nothing. See `pacs lineage show`."""


class TrialCopy(PacsError):
    """This is a trial copy of an archive: it writes to no repository. See docs/operate/restore.md."""

    exit_code = 14


class VolumeError(PacsError):
    """A volume is not what it should be, and is left alone."""

    status = TryAgainLater.status
    http = 503
    exit_code = 5


class VolumeMissing(VolumeError):
    """There is no volume here: its identity file volume.json is missing. Is its disk attached and mounted?"""


class ForeignVolume(VolumeError):
    """The volume belongs to another appliance. Attach this appliance's own disks."""


class DataTooNew(PacsError):
    """The data was written by a newer version. Nothing was touched. Boot the image that wrote it, or a newer one."""

    exit_code = 6

    @classmethod
    def of_format(cls, what: str, found: Mapping[str, object], known: int) -> DataTooNew:
        """That what stands in a file is of a format that is not known here. `found`: with `format`, and the `version`
        that wrote it, if it says so."""
        version = found.get("version")
        image = f"Use the image of version {version}" if version else "Boot the image that wrote it"
        by = f", of version {version}" if version else ""
        return cls(
            f"{what} has format {found.get('format')}{by}; this version knows {known}. Nothing was touched. "
            f"{image}, or a newer one."
        )


class BackupError(PacsError):
    """The backup did not finish, and does not count. The one before it stands."""

    exit_code = 7


class RestoreError(PacsError):
    """The restore did not finish. Nothing was taken away from the repository."""

    exit_code = 8


class WrongKey(PacsError):
    """The key does not open this. Nothing was touched. Take the recovery sheet that belongs to it."""

    exit_code = 12


class RebuildError(PacsError):
    """The index is being rebuilt, or was not rebuilt. The index that was there is as it was."""

    http = 503
    exit_code = 11


class SelftestFailed(PacsError):
    """A selftest did not pass. The line above says at which step."""

    exit_code = 13


class NotFound(PacsError):
    """There is no such thing here."""

    http = 404
    exit_code = 9


class DigestMismatch(PacsError):
    """Bytes read back are not the bytes that were stored. The copy is left where it is, for a look at its disk."""

    exit_code = 10


class StandbyError(PacsError):
    """This cannot be done with a standby as it is now. `pacs standby status` says how it is."""

    exit_code = 15


class AtWork(PacsError):
    """Another command is at work on this node's data. Wait for it."""

    exit_code = 16
