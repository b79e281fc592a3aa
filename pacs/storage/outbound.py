"""Whether this node may begin associations of its own: held after a promotion, until a person agrees.

The node that was the archive may have sent the same already, or its address may be another's now. What a device asks
for and gets over its own association is none of this.
"""

from __future__ import annotations

from pathlib import Path

from pacs.storage import durable

_MARK = Path("config", "outbound-held")


def is_held(data: Path) -> bool:
    """Whether nothing is to be sent yet."""
    return (data / _MARK).exists()


def hold(data: Path) -> None:
    """Send nothing from now on."""
    durable.replace_file(data / _MARK, b"")


def release(data: Path) -> None:
    """A person agrees: send."""
    (data / _MARK).unlink(missing_ok=True)
    durable.fsync_folder((data / _MARK).parent)
