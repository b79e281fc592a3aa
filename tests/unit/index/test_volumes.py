"""The table of volumes: two services that begin at once make the same first volume known."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

from pacs.index.database import Database
from pacs.index.volumes import KnownVolume, list_volumes, register_volume

AT_ONCE, VOLUMES = 4, 400


def test_services_that_begin_at_once_make_a_volume_known_once(database: Database) -> None:
    """Two unique indexes are a race of their own: ON CONFLICT watches over one of them only."""
    made = [KnownVolume(str(uuid.uuid4()), f"volume{each}", 1, f"/nowhere/{each}") for each in range(VOLUMES)]

    def register_all(_service: int) -> None:
        for volume in made:
            begin.wait(30)
            register_volume(database, volume)

    begin = threading.Barrier(AT_ONCE)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(register_all, range(AT_ONCE)))
    assert {row.volume_id for row in list_volumes(database)} == {volume.volume_id for volume in made}


def test_a_volume_that_is_elsewhere_now_is_known_there(database: Database) -> None:
    volume = KnownVolume(str(uuid.uuid4()), "tier1", 1, "/nowhere/before")
    register_volume(database, volume)
    register_volume(database, KnownVolume(volume.volume_id, "tier1", 1, "/nowhere/now"))
    assert [row.location for row in list_volumes(database)] == ["/nowhere/now"]
