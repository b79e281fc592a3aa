"""The backup goes by itself once a repository is named: first backup, log, points. What a point names is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pacs.backup.cluster import restore_cluster
from pacs.backup.points import Point
from pacs.backup.repositories import open_volume, repository_named
from pacs.cli.cluster import Cluster
from pacs.cli.dev import unprivileged_user
from pacs.storage.keyring import Keyring
from pacs.storage.names import repository_path
from tests import peer
from tests.faults.process import wait_for
from tests.fix_instance import Dev
from tests.peer import RawObject
from tests.synthetic import ct_study


def _points(dev: Dev) -> list[Point]:
    found = json.loads(dev.pacs("backup", "points", "--json").stdout)["usb"]
    return [Point(**{**each, "at": datetime.fromisoformat(each["at"])}) for each in found]


def _checks(dev: Dev) -> dict[str, Any]:
    found = json.loads(dev.pacs("check", "--json", check=False).stdout)
    return {each["name"]: each for each in found}


@pytest.mark.long
def test_from_a_repository_to_a_restored_point(new_dev: Callable[..., Dev], short_folder: Path) -> None:
    dev = new_dev(PACS_RECOVERY_POINT_S="1").start()
    place = dev.data.parent / f"{dev.data.name}-repository"
    place.mkdir(mode=0o755)
    assert "no repository" in _checks(dev)["backup"]["message"]
    assert dev.pacs("backup", "configured", check=False).returncode == 9
    dev.pacs("backup", "repository", "add", "usb", "--place", str(place), "--on-system-disk")
    assert dev.pacs("backup", "configured").returncode == 0

    def status() -> dict[str, Any]:
        return json.loads(dev.pacs("backup", "status", "--json").stdout)["usb"]

    wait_for(lambda: status()["label"], "no first backup was made", timeout_s=150)  # the worker saw that it has none
    assert status()["gap_since"] is None and status()["configuration"]
    objects = [RawObject.of(made) for made in ct_study(5, 6)]
    assert set(peer.store(dev.dicom_port, objects)) == {0}
    wait_for(lambda: any(point.newest_object_key >= 6 for point in _points(dev)), "no point was made", timeout_s=150)
    found = _checks(dev)
    assert found["backup"]["severity"] == "ok", found["backup"]
    assert found["log"]["severity"] == "ok", found["log"]
    listed = json.loads(dev.pacs("backup", "list", "--json").stdout)["usb"]
    assert [each["kind"] for each in listed["database"]] == ["full"] and listed["configuration"]
    point = next(each for each in _points(dev) if each.newest_object_key >= 6)
    dev.pacs("backup", "run")
    assert len(json.loads(dev.pacs("backup", "list", "--json").stdout)["usb"]["database"]) == 2
    dev.kill_all()

    repository, keyring = repository_named(dev.data, "usb"), Keyring.open(dev.data)
    folder = dev.data.parent / f"{dev.data.name}-restored"
    (folder / "postgresql").mkdir(parents=True)
    user = unprivileged_user(folder)
    restore_cluster(repository, keyring, folder / "postgresql" / "main", point=point, user=user)
    restored, volume = Cluster(folder, user), open_volume(repository, keyring)
    restored.start()
    try:
        with psycopg.connect(f"host={restored.sockets} dbname=pacs user=pacs") as connection:
            rows = connection.execute("SELECT sha256 FROM object").fetchall()
        assert len(rows) == 6
        assert all(volume.digest_on_disk(repository_path(bytes(row[0]))) == bytes(row[0]) for row in rows)
    finally:
        volume.close()
        restored.stop()
