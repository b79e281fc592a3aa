"""What every fault test ends with: the count of what is there.

Every acknowledged object reads back with its bytes, every good copy's row has the bytes whose digest it states, and
every file that has no row is found by `pacs reconcile run`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.faults.sender import Account, missing_or_different
from tests.fix_instance import Dev


def assert_nothing_lost(dev: Dev, account: Account) -> None:
    """Compare what was acknowledged, the rows and the files of a running `pacs dev` (with PACS_ORPHAN_AGE_S=0)."""
    assert missing_or_different(dev.dicom_port, account) == []
    assert rows_without_bytes(dev) == []
    before = files_without_row(dev)
    found = dev.pacs("reconcile", "run", "--json", check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    findings = json.loads(found.stdout)
    assert findings["missing"] == 0
    # Each of them was indexed, put aside or, being a temporary file, removed: none is left that nobody knows of.
    assert findings["indexed"] + findings["quarantined"] + findings["temporary_removed"] >= len(before)
    assert files_without_row(dev) == []
    assert rows_without_bytes(dev) == []
    assert missing_or_different(dev.dicom_port, account) == []


def copies(dev: Dev) -> list[dict[str, Any]]:
    """The rows of all good copies: SOP Instance UID, tier, path, size [bytes] and SHA-256."""
    with psycopg.connect(f"host={dev.data / 'run'} dbname=pacs user=pacs", row_factory=dict_row) as connection:
        return connection.execute(
            "SELECT o.sop_instance_uid, v.tier, c.path, o.size_bytes, o.sha256"
            " FROM copy c JOIN object o USING (object_key) JOIN volume v USING (volume_id) WHERE c.state = 'good'"
        ).fetchall()


def root_of(dev: Dev, tier: int) -> Path:
    """Where a tier's volume is."""
    return Path(dev.environment.get(f"PACS_TIER{tier}", dev.data / f"tier{tier}"))


def rows_without_bytes(dev: Dev) -> list[str]:
    """Paths of good copies whose file is missing, or is not the bytes that the row states."""
    wrong = []
    for row in copies(dev):
        path = root_of(dev, row["tier"]) / row["path"]
        if not path.is_file() or path.stat().st_size != row["size_bytes"] or _sha256(path) != row["sha256"]:
            wrong.append(row["path"])
    return wrong


def files_without_row(dev: Dev) -> list[str]:
    """Files in objects/ and incoming/ of the volumes that no good copy's row names."""
    known = {(row["tier"], row["path"]) for row in copies(dev)}
    found = []
    for tier in (1, 2):
        root = root_of(dev, tier)
        for top in ("objects", "incoming"):
            paths = (str(path.relative_to(root)) for path in (root / top).rglob("*") if path.is_file())
            found += [path for path in paths if (tier, path) not in known]
    return found


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
