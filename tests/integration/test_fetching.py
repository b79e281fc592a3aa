"""What the drill asks with: a receiver's answers, and the digests of what it gives."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pacs.cli.instance import Instance
from pacs.net.fetching import Asked, fetch
from tests.serving import serving
from tests.synthetic import ct_study
from tests.tiers import store


def _asked(instance: Instance) -> list[Asked]:
    with instance.database.transaction() as connection:
        rows = connection.execute(
            "SELECT study_instance_uid, series_instance_uid, sop_instance_uid, sop_class_uid, transfer_syntax_uid"
            " FROM object JOIN series USING (series_key) JOIN study USING (study_key)"
        ).fetchall()
    return [Asked(**row) for row in rows]


def _digests(instance: Instance) -> dict[str, bytes]:
    with instance.database.transaction() as connection:
        rows = connection.execute("SELECT sop_instance_uid, sha256 FROM object").fetchall()
    return {row["sop_instance_uid"]: bytes(row["sha256"]) for row in rows}


def test_what_is_given_has_the_digests_of_the_volumes_files(instance: Instance) -> None:
    for seed in range(1, 6):
        store(instance, ct_study(seed, 3))
    asked = _asked(instance)
    with serving(instance) as port:
        given = fetch(port, "PACS", asked)
    assert given.digests == _digests(instance)
    assert len(given.found) == 5


def test_what_is_not_there_or_damaged_is_not_given_or_differs(instance: Instance) -> None:
    store(instance, ct_study(1, 3))
    first, second, third = sorted((Path(instance.volumes.tier(1)[0].location) / "objects").rglob("*.dcm"))
    first.unlink()
    content = bytearray(second.read_bytes())
    content[-1] ^= 1
    second.write_bytes(content)
    digests = _digests(instance)
    asked = [
        *_asked(instance),
        Asked("1.2.3", "1.2.3.1", "1.2.3.1.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2"),
    ]
    with serving(instance) as port:
        given = fetch(port, "PACS", asked)
    assert len(given.found) == 1
    right = {uid for uid, digest in given.digests.items() if digests[uid] == digest}
    assert {digests[uid] for uid in right} == {hashlib.sha256(third.read_bytes()).digest()}
    assert len(given.digests) == 2
