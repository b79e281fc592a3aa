"""How much room is kept free for the database. Pure.

What PostgreSQL writes beside its tables without being asked:

- its log (WAL): up to max_wal_size between two checkpoints, a little more under load;
- temporary files of large sorts, hint bits and statistics; a vacuum makes no second copy of a table, and the log that
  waits for a repository takes none of it;
- the journal, associations, refusals: what goes on being written while objects are refused; small.

So: max_wal_size and half a gigabyte. On a small disk a quarter of it has to do: when no objects come, hardly anything
is written, so what the log takes until then is what counts, and what it has taken already is not free any more.
"""

from __future__ import annotations

OTHERS_BYTES = 512 << 20
_PART_MAX = 4


def default_reserve_bytes(wal_size_bytes_max: int, volume_size_bytes: int) -> int:
    """The reserve on a volume of that size, for a log that may grow to wal_size_bytes_max."""
    return min(wal_size_bytes_max + OTHERS_BYTES, volume_size_bytes // _PART_MAX)


def clear_bytes(reserve_bytes: int) -> int:
    """How much must be free before objects are taken again."""
    return reserve_bytes + reserve_bytes // 10


def least_volume_bytes(wal_size_bytes_max: int) -> int:
    """The smallest volume on which the log fits twice: below, a burst can fill it whatever is refused."""
    return 2 * wal_size_bytes_max
