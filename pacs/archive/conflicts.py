"""Conflicts, seen and decided by a person: the journal first, then the index. No bytes are ever changed or removed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pydicom

from pacs.archive.store import Announced, Store, StoreSession
from pacs.archive.volumes import Volumes
from pacs.errors import NotFound, UsageError
from pacs.index import conflicts as rows
from pacs.index import store as store_rows
from pacs.index.conflicts import KINDS, OF_OBJECTS, Decision
from pacs.index.database import Connection, Database, Row
from pacs.model import part10
from pacs.model.difference import Difference, differences
from pacs.model.new_uid import derived_uid, with_sop_instance_uid
from pacs.storage.journal import Journal
from pacs.storage.kinds import Volume
from pacs.storage.reading import stream

_PATIENT = ("patient_id", "issuer_of_patient_id", "patient_name", "patient_birth_date", "patient_sex")
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


@dataclass(frozen=True)
class Comparison:
    """What is here and what came, side by side. `pixels` is empty where there are none to compare."""

    differences: list[Difference]
    pixels: str = ""


def about(database: Database, conflict: Row) -> dict[str, str]:
    """What a conflict is about: its UIDs, without a patient's data."""
    came = conflict["came"]
    if conflict["kind"] in OF_OBJECTS:
        return {"sop_instance_uid": came["sop_instance_uid"], "study_instance_uid": came["study_instance_uid"]}
    if conflict["kind"] == "series":
        here = rows.subject(database, "series", conflict["subject_key"])
        return {
            "series_instance_uid": came["series_instance_uid"],
            "study_instance_uid": here["study_instance_uid"],
            "other_study_instance_uid": came["study_instance_uid"],
        }
    return {"study_instance_uid": came["study_instance_uid"]}


def compare(database: Database, volumes: Volumes, conflict: Row) -> Comparison:
    """What is here and what came. Raise NotFound if an object's bytes are not at hand."""
    if conflict["kind"] in OF_OBJECTS:
        other = rows.object_with(database, conflict["other_key"])
        current = rows.current_object(database, other["sop_instance_uid"])
        if current["object_key"] == other["object_key"]:  # resolved: beside the one that was current
            current = rows.object_with(database, conflict["subject_key"])
        return _compare_objects(database, volumes, current, other)
    here, came = rows.subject(database, conflict["kind"], conflict["subject_key"]), conflict["came"]
    found = [
        Difference("", name.replace("_", " "), str(here[name]), str(came[name]))
        for name in (*_PATIENT, "study_instance_uid")
        if name in here and name in came and here[name] != came[name]
    ]
    return Comparison(found)


def _compare_objects(database: Database, volumes: Volumes, current: Row, other: Row) -> Comparison:
    one, one_pixels = _read(database, volumes, current)
    two, two_pixels = _read(database, volumes, other)
    found = list(differences(one, two))
    if current["transfer_syntax_uid"] != other["transfer_syntax_uid"]:
        syntaxes = (current["transfer_syntax_uid"], other["transfer_syntax_uid"])
        found.insert(0, Difference("(0002,0010)", "Transfer Syntax UID", *syntaxes))
    if one_pixels == two_pixels:
        return Comparison(found, "the same" if one_pixels else "none")
    is_one_encoding = current["transfer_syntax_uid"] == other["transfer_syntax_uid"]
    return Comparison(found, "different" if is_one_encoding else "different bytes, in two encodings")


def _read(database: Database, volumes: Volumes, row: Row) -> tuple[pydicom.Dataset, bytes]:
    """An object's data set without its pixels, and the digest of those; empty if it has none."""
    volume, path, _offset = _locate(database, volumes, row)
    if pydicom.uid.UID(row["transfer_syntax_uid"]).is_deflated:
        with stream(volume, path) as file:
            ds = pydicom.dcmread(file)
        values = [bytes(ds[keyword].value or b"") for keyword in _PIXELS if keyword in ds]
        for keyword in _PIXELS:
            ds.pop(keyword, None)
        return ds, hashlib.sha256(b"".join(values)).digest() if values else b""
    with stream(volume, path) as file:
        ds = pydicom.dcmread(file, stop_before_pixels=True)
        pixels_at = file.tell()
    digest, size = hashlib.sha256(), 0
    for piece in volume.read(path, pixels_at):
        digest.update(piece)
        size += len(piece)
    return ds, digest.digest() if size else b""


def _locate(database: Database, volumes: Volumes, row: Row) -> tuple[Volume, str, int]:
    """A good copy of an object: its volume, its path there, and where its data set begins. Raise NotFound."""
    with database.transaction() as connection:
        copies = store_rows.good_copies(connection, row["object_key"])
    for copy in copies:
        volume = volumes.by_id.get(copy["volume_id"])
        if volume is not None and volume.has(copy["path"]):
            start = volume.read_start(copy["path"], part10.START_BYTES_MAX)
            return volume, copy["path"], part10.decode_file_meta(start).dataset_offset
    raise NotFound("No good copy of the object is at hand. Run `pacs reconcile run`, and look at its volumes.")


def resolve(
    database: Database, journal: Journal, volumes: Volumes, store: Store, conflict_key: int, decision: Decision
) -> str:
    """Do what a person decided; return what was done in words. Raise UsageError if it cannot be done to this kind."""
    with rows.deciding(database, conflict_key) as (connection, conflict):
        words, possible = KINDS[conflict["kind"]]
        if decision not in possible:
            raise UsageError(
                f"Of {words}: {', '.join('--' + each for each in possible)} only. See `pacs conflict show`."
            )
        done = _Resolution(database, journal, volumes, store, connection, conflict).run(decision)
        rows.resolve(connection, conflict_key, decision)
    return done


class _Resolution:
    """One decision on its way. The connection holds the conflict's row, so nobody decides the same at once."""

    def __init__(
        self,
        database: Database,
        journal: Journal,
        volumes: Volumes,
        store: Store,
        connection: Connection,
        conflict: Row,
    ) -> None:
        self.database, self.journal, self.volumes, self.store = database, journal, volumes, store
        self.connection, self.conflict = connection, conflict

    def run(self, decision: Decision) -> str:
        if decision == "new-uids":
            return self._store_under_new_uid()
        self._note(decision)
        if decision == "keep":
            return "It stays as it is; what came is kept as it was."
        key, came = self.conflict["subject_key"], self.conflict["came"]
        if self.conflict["kind"] == "study":
            rows.move_study(self.connection, key, came)
            return "The study is under the other patient now."
        if self.conflict["kind"] == "patient":
            rows.rename_patient(self.connection, key, came)
            return "The patient has the other name now."
        rows.make_current(self.connection, self.conflict["other_key"])
        return "The other object is current now; the one that was is kept beside it."

    def _note(self, decision: Decision, **more: str) -> None:
        """Journal a decision in terms that outlive the index: UIDs, digests, and what came."""
        kind, came = self.conflict["kind"], self.conflict["came"]
        details: dict[str, Any] = {"kind": kind, "resolution": decision, **about(self.database, self.conflict), **more}
        if kind in OF_OBJECTS:
            details["sha256"] = rows.object_with(self.database, self.conflict["other_key"])["sha256"].hex()
        else:
            here = rows.subject(self.database, kind, self.conflict["subject_key"])
            details["here"] = {name: here[name] for name in _PATIENT if name in here}
            details["came"] = {name: came[name] for name in _PATIENT}
        self.journal.append("conflict resolve", **details)

    def _store_under_new_uid(self) -> str:
        other = rows.object_with(self.database, self.conflict["other_key"])
        uid = derived_uid(other["sop_instance_uid"], other["sha256"])
        volume, path, offset = _locate(self.database, self.volumes, other)  # what cannot be done is not journalled
        self._note("new-uids", new_sop_instance_uid=uid)
        self._store(other, uid, with_sop_instance_uid(volume.read(path, offset), other["transfer_syntax_uid"], uid))
        return f"The other object can be found as {uid} too; the bytes that came are kept as they were."

    def _store(self, other: Row, uid: str, pieces: Iterator[bytes]) -> None:
        announced = Announced(other["sop_class_uid"], uid, other["transfer_syntax_uid"])
        arriving = self.store.begin(announced, StoreSession())
        try:
            for piece in pieces:
                arriving.write(memoryview(piece))
            arriving.finish()
        except BaseException:
            arriving.abandon()
            raise
