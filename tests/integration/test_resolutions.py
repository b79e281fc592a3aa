"""Conflicts decided by a person: the journal first, nothing removed, and what counts then is what was chosen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from pacs.archive import conflicts
from pacs.archive.store import Arrival
from pacs.cli.instance import Instance, open_instance
from pacs.errors import NotFound, UsageError
from pacs.index import conflicts as rows
from pacs.index.conflicts import Decision
from pacs.index.query import study_list
from pacs.index.store import good_copies
from pacs.model.part10 import decode_file_meta
from tests.synthetic import ct_dataset, encode
from tests.unit.cli.conftest import Run, run

__all__ = ["run"]


def store(instance: Instance, ds: Dataset) -> str:
    made = encode(ds)
    return instance.store().store(
        Arrival(made.dataset, made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid)
    )


def resolve(instance: Instance, decision: Decision, number: int | None = None) -> str:
    """Decide a conflict, the only one unless its number is given."""
    if number is None:
        (only,) = rows.list_conflicts(instance.database)
        number = only["conflict_key"]
    return conflicts.resolve(instance.database, instance.journal, instance.volumes, instance.store(), number, decision)


def changed(seed: int, **values: object) -> Dataset:
    ds = ct_dataset(seed)
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def given_back(instance: Instance, ds: Dataset) -> dict[str, bytes]:
    """What a retrieve of the data set's study sends: data sets by SOP Instance UID."""
    found = {}
    with instance.database.transaction() as connection:
        for wanted in instance.retrieve().wanted({"StudyInstanceUID": [str(ds.StudyInstanceUID)]}):
            (copy,) = good_copies(connection, wanted.object_key)
            content = instance.volumes.by_id[copy["volume_id"]].path_of(copy["path"]).read_bytes()
            found[wanted.sop_instance_uid] = content[decode_file_meta(content).dataset_offset :]
    return found


def files(instance: Instance) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (instance.volumes.tier(1)[0].root / "objects").rglob("*.dcm")}


def journal(instance: Instance) -> list[dict[str, object]]:
    return [line for line in instance.journal.read() if line["what"] == "conflict resolve"]


@pytest.fixture
def two_contents(instance: Instance) -> tuple[Dataset, Dataset]:
    """Two objects under one UID; the first is current."""
    first, second = ct_dataset(1), changed(1, StudyDescription="Something else")
    assert [store(instance, ds) for ds in (first, second)] == ["stored", "conflict"]
    return first, second


def test_keep(instance: Instance, two_contents: tuple[Dataset, Dataset]) -> None:
    first, second = two_contents
    before = files(instance)
    resolve(instance, "keep")
    assert given_back(instance, first) == {first.SOPInstanceUID: encode(first).dataset}
    assert files(instance) == before
    assert rows.list_conflicts(instance.database) == []
    assert [line["resolution"] for line in journal(instance)] == ["keep"]
    assert store(instance, second) == "duplicate", "decided once, not raised again"
    assert rows.list_conflicts(instance.database) == []


def test_replace(instance: Instance, two_contents: tuple[Dataset, Dataset]) -> None:
    first, second = two_contents
    before = files(instance)
    resolve(instance, "replace")
    assert given_back(instance, first) == {first.SOPInstanceUID: encode(second).dataset}
    assert files(instance) == before
    assert [store(instance, ds) for ds in (first, second)] == ["duplicate", "duplicate"]
    third = changed(1, StudyDescription="A third")
    assert store(instance, third) == "conflict"
    (conflict,) = rows.list_conflicts(instance.database)
    found = conflicts.compare(instance.database, instance.volumes, conflict)
    assert [(each.name, each.one, each.other) for each in found.differences] == [
        ("Study Description", "Something else", "A third")
    ]


def test_new_uids(instance: Instance, two_contents: tuple[Dataset, Dataset]) -> None:
    first, _second = two_contents
    before = files(instance)
    said = resolve(instance, "new-uids")
    (line,) = journal(instance)
    uid = str(line["new_sop_instance_uid"])
    assert uid.startswith("2.25.")
    assert uid in said
    second_there = changed(1, StudyDescription="Something else", SOPInstanceUID=uid)
    assert given_back(instance, first) == {
        first.SOPInstanceUID: encode(first).dataset,
        uid: encode(second_there).dataset,
    }
    assert before.items() <= files(instance).items(), "the bytes that came stay as they were"
    (study,) = study_list(instance.database, 10)
    assert study["series"] == 1
    assert rows.list_conflicts(instance.database) == []


def test_new_uids_that_were_interrupted_are_done_again_to_the_same_end(
    instance: Instance, two_contents: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_words: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(conflicts.rows, "resolve", interrupted)
        with pytest.raises(KeyboardInterrupt):
            resolve(instance, "new-uids")
    assert len(rows.list_conflicts(instance.database)) == 1
    resolve(instance, "new-uids")
    assert len(given_back(instance, two_contents[0])) == 2
    assert len({line["new_sop_instance_uid"] for line in journal(instance)}) == 1


def test_a_decision_that_the_journal_cannot_take_is_none(
    instance: Instance, two_contents: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("pacs.storage.durable.fsync_fd", refuse)
        with pytest.raises(Exception, match="Input/output error"):
            resolve(instance, "replace")
    first = two_contents[0]
    assert given_back(instance, first) == {first.SOPInstanceUID: encode(first).dataset}
    assert len(rows.list_conflicts(instance.database)) == 1


def test_a_conflict_is_decided_once(instance: Instance, two_contents: tuple[Dataset, Dataset]) -> None:
    (conflict,) = rows.list_conflicts(instance.database)
    resolve(instance, "keep")
    with pytest.raises(UsageError, match="resolved already"):
        resolve(instance, "replace", conflict["conflict_key"])
    with pytest.raises(NotFound):
        resolve(instance, "keep", 99999999)
    assert len(journal(instance)) == 1


def test_one_uid_in_two_studies(instance: Instance) -> None:
    first = ct_dataset(2)
    second = changed(2, StudyInstanceUID="1.2.3.4", SeriesInstanceUID="1.2.3.4.5")
    assert [store(instance, ds) for ds in (first, second)] == ["stored", "conflict"]
    (conflict,) = rows.list_conflicts(instance.database)
    assert conflict["kind"] == "place"
    found = conflicts.compare(instance.database, instance.volumes, conflict)
    assert [each.name for each in found.differences] == ["Study Instance UID", "Series Instance UID"]
    assert found.pixels == "the same"
    resolve(instance, "new-uids")
    (elsewhere,) = given_back(instance, second)
    assert elsewhere.startswith("2.25.")
    assert list(given_back(instance, first)) == [first.SOPInstanceUID]


def patient_of_study(instance: Instance) -> tuple[str, str]:
    (study,) = study_list(instance.database, 10)
    return study["patient_id"], study["patient_name"]


def test_a_study_of_another_patient(instance: Instance) -> None:
    second = changed(3, SOPInstanceUID="1.2.3", PatientID="P-RIGHT", PatientName="Right^Patient")
    assert [store(instance, ds) for ds in (ct_dataset(3), second)] == ["stored", "stored"]
    assert patient_of_study(instance) == ("P3", "Müller^Seed3")
    (conflict,) = rows.list_conflicts(instance.database)
    found = conflicts.compare(instance.database, instance.volumes, conflict)
    assert {each.name: (each.one, each.other) for each in found.differences} == {
        "patient id": ("P3", "P-RIGHT"),
        "patient name": ("Müller^Seed3", "Right^Patient"),
    }
    resolve(instance, "replace")
    assert patient_of_study(instance) == ("P-RIGHT", "Right^Patient")
    assert len(given_back(instance, second)) == 2
    for number, ds in enumerate((changed(3), changed(3, PatientID="P-RIGHT", PatientName="Right^Patient"))):
        ds.SOPInstanceUID = f"1.2.4.{number}"
        assert store(instance, ds) == "stored"
    assert rows.list_conflicts(instance.database) == [], "neither is news any more"
    (line,) = journal(instance)
    assert line["came"]["patient_id"] == "P-RIGHT"  # type: ignore[index]
    with pytest.raises(UsageError, match="resolved already"):
        resolve(instance, "replace", conflict["conflict_key"])


@pytest.mark.parametrize(("decision", "name"), [("keep", "Müller^Seed4"), ("replace", "Married^Name")])
def test_a_patient_with_two_names(instance: Instance, decision: Decision, name: str) -> None:
    objects = [ct_dataset(4), changed(4, SOPInstanceUID="1.2.3", PatientName="Married^Name")]
    assert [store(instance, ds) for ds in objects] == ["stored", "stored"]
    with pytest.raises(UsageError, match="--keep, --replace"):
        resolve(instance, "new-uids")
    resolve(instance, decision)
    assert patient_of_study(instance) == ("P4", name)
    for number, ds in enumerate(objects):
        ds.SOPInstanceUID = f"1.2.4.{number}"
        assert store(instance, ds) == "stored"
    assert rows.list_conflicts(instance.database) == []
    assert patient_of_study(instance) == ("P4", name)


def test_a_renamed_patient_is_found_by_the_new_name(instance: Instance) -> None:
    from pacs.index.query import Question, find
    from pacs.model.attributes import BY_KEYWORD, Level
    from pacs.model.matching import parse

    for ds in (ct_dataset(4), changed(4, SOPInstanceUID="1.2.3", PatientName="Married^Name")):
        store(instance, ds)
    resolve(instance, "replace")
    for name, count in (("married^name", 1), ("müller^seed4", 0)):
        match = parse(BY_KEYWORD["PatientName"], name)
        assert match is not None
        found = find(instance.database, Question(Level.STUDY, {"PatientName": match}, ["StudyInstanceUID"]))
        assert len(list(found)) == count, name


def test_the_commands(run: Run, new_instance: Callable[[], Path]) -> None:
    data = new_instance()
    with open_instance(data) as instance:
        for ds in (
            ct_dataset(5),
            changed(5, PatientName="Other^Name"),
            changed(5, SOPInstanceUID="1.9", PatientID="X"),
        ):
            store(instance, ds)
        series = changed(6, SeriesInstanceUID=str(ct_dataset(5).SeriesInstanceUID))
        store(instance, series)
    listed = json.loads(run("--data", data, "conflict", "list", "--json").out)
    kinds = {each["kind"]: each["conflict_key"] for each in listed}
    assert set(kinds) == {"content", "patient", "study", "series"}
    assert "Other^Name" not in run("--data", data, "conflict", "list").out
    for number in kinds.values():
        assert run("--data", data, "conflict", "show", number).code == 0
        assert json.loads(run("--data", data, "conflict", "show", number, "--json").out)["conflict_key"] == number
    shown = run("--data", data, "conflict", "show", kinds["content"]).out
    assert "Patient's Name" in shown
    assert "Other^Name" in shown
    assert "pixels: the same" in shown
    assert f"pacs conflict resolve {kinds['content']}" in shown

    checked = json.loads(run("--data", data, "check", "--json").out)
    (result,) = [each for each in checked if each["name"] == "conflicts"]
    assert result["severity"] == "warning"
    assert "1 × one study under two patients" in result["message"]
    assert "conflict list" in result["hint"]

    for words in ([], ["--keep", "--replace"], ["--nonsense"]):
        assert run("--data", data, "conflict", "resolve", kinds["content"], *words).code == 2, words
    assert run("--data", data, "conflict", "resolve", kinds["series"], "--replace").code == 2
    assert run("--data", data, "conflict", "resolve", 99999999, "--keep").code == 9
    for number in kinds.values():
        outcome = run("--data", data, "conflict", "resolve", number, "--keep")
        assert outcome.code == 0
        assert f"Conflict {number} is resolved" in outcome.out
    assert json.loads(run("--data", data, "conflict", "list", "--json").out) == []
    everything = json.loads(run("--data", data, "conflict", "list", "--all", "--json").out)
    assert {each["resolution"] for each in everything} == {"keep"}
