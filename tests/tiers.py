"""Studies on tiers, for tests: stored, moved, and where their files and rows are then."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pacs.archive.move import Mover
from pacs.archive.move_group import Pass
from pacs.archive.recall import Recaller
from pacs.archive.store import Arrival
from pacs.archive.volumes import Volumes
from pacs.cli.instance import Instance
from pacs.index import volumes as volume_rows
from pacs.index.volumes import KnownVolume
from pacs.model.tier_rules import Look, Rule
from pacs.storage.volume import create_identity, read_identity
from tests.synthetic import SyntheticObject

DOWN = Look(True, None, "in a test")


def add_volume(instance: Instance, tier: int, name: str) -> str:
    """Add a volume to a tier of an instance; return its id."""
    root = instance.settings.data / name
    root.mkdir()
    made = create_identity(root, (f"tier{tier}",), read_identity(instance.settings.data).appliance_id)
    volume_rows.register_volume(instance.database, KnownVolume(made.volume_id, name, tier, str(root)))
    instance.volumes.refresh()
    return made.volume_id


def store(instance: Instance, objects: Sequence[SyntheticObject], association_key: int | None = None) -> None:
    """Store objects as the receive path does."""
    receiving = instance.store()
    for made in objects:
        arrival = Arrival(
            made.dataset, made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid, association_key
        )
        assert receiving.store(arrival) == "stored"


@contextmanager
def mover(instance: Instance, settle_s: float = 0, recall_keep_s: float = 0) -> Iterator[Mover]:
    """A mover of an instance."""
    made = Mover(instance.database, instance.volumes, settle_s, recall_keep_s)
    try:
        yield made
    finally:
        made.close()


def follow(instance: Instance, rule: Rule, settle_s: float = 0, recall_keep_s: float = 0) -> Pass:
    """Follow a rule once, whether or not it is due."""
    done = Pass()
    with mover(instance, settle_s, recall_keep_s) as moving:
        moving.follow_rule(rule, DOWN, done)
    return done


def recall(instance: Instance, tier: int = 2) -> int:
    """Do the recalls that are due; return how many studies are back."""
    recaller = Recaller(instance.database, instance.volumes, tier)
    try:
        return recaller.run()
    finally:
        recaller.close()


def files(volumes: Volumes, tier: int) -> list[Path]:
    """The objects' files on the volumes of a tier, whatever their state."""
    ids = [row.volume_id for row in volumes.rows if row.tier == tier]
    return sorted(path for each in ids for path in (Path(volumes.get(each).location) / "objects").rglob("*.dcm"))


def good_by_tier(instance: Instance, study_instance_uid: str | None = None) -> dict[int, int]:
    """How many good copies each tier has, of one study or of all."""
    with instance.database.transaction() as connection:
        rows = connection.execute(
            "SELECT v.tier, count(*) AS n FROM copy c JOIN volume v USING (volume_id) JOIN object o USING (object_key)"
            " JOIN series USING (series_key) JOIN study st USING (study_key)"
            " WHERE c.state = 'good' AND coalesce(st.study_instance_uid = %s, true) GROUP BY v.tier",
            (study_instance_uid,),
        ).fetchall()
    return {row["tier"]: row["n"] for row in rows}


def assert_each_object_is_safe(instance: Instance) -> None:
    """Each object has a good copy whose file is the bytes that were stored, and at most one row a volume."""
    with instance.database.transaction() as connection:
        rows = connection.execute(
            "SELECT o.object_key, o.sha256, c.volume_id::text, c.path FROM object o"
            " LEFT JOIN copy c ON c.object_key = o.object_key AND c.state = 'good'"
        ).fetchall()
    assert rows
    assert max(Counter((row["object_key"], row["volume_id"]) for row in rows).values()) == 1
    for row in rows:
        assert row["path"] is not None, f"object {row['object_key']} has no good copy"
        file = Path(instance.volumes.get(row["volume_id"]).location) / row["path"]
        assert hashlib.sha256(file.read_bytes()).digest() == bytes(row["sha256"])
