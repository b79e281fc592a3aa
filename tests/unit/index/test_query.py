"""Attribute matching of PS3.4 C.2.2.2 by PostgreSQL over real rows, for each value representation that is a key."""

from __future__ import annotations

from pacs.index import computed, movement, query, retrieve, tiers, volumes
from pacs.index.database import Database
from pacs.index.query import Question
from pacs.model import matching
from pacs.model.attributes import BY_KEYWORD, Level
from tests.unit.index.rows import new_volume, record, store


def matched(database: Database, keyword: str, value: str, level: Level | None = None, show: str = "") -> set[str]:
    """The values of `keyword` (or `show`) that a query for `value` finds."""
    attribute = BY_KEYWORD[keyword]
    match = matching.parse(attribute, value)
    matches = {} if match is None else {keyword: match}
    found = query.find(database, Question(level or attribute.level, matches, [show or keyword]))
    return {str(row[show or keyword]) for row in found}


def fill(database: Database, column: str, values: list[str]) -> None:
    volume = new_volume(database)
    for value in values:
        assert store(database, volume, record(**{column: value}))[0] == "stored"


NAMES = [
    "Müller^Jörg", "MÜLLER^HANS", "Mueller^Jörg", "Doe^Jane", "Doe^Janet", "O'Neil^Pat", "100%^Sure", "100x^Sure",
    "A_B^C", "AxB^C", "ΣΙΓΜΑΣ^Α", "Łódź^Ż", "Yamada^Tarou=山田^太郎=やまだ^たろう", "Back\\slash", "Star*^Q?",
]  # fmt: skip


def test_names(database: Database) -> None:
    fill(database, "patient_name", NAMES)
    for value, expected in {
        "": set(NAMES),
        "*": set(NAMES),
        "Doe^Jane": {"Doe^Jane"},
        "doe^JANE": {"Doe^Jane"},
        "Doe^Jane^^^": {"Doe^Jane"},
        "doe*": {"Doe^Jane", "Doe^Janet"},
        "*jane*": {"Doe^Jane", "Doe^Janet"},
        "Doe^Jane?": {"Doe^Janet"},
        "???^J*": {"Doe^Jane", "Doe^Janet"},
        "müller^jörg": {"Müller^Jörg"},
        "MÜLLER*": {"Müller^Jörg", "MÜLLER^HANS"},
        "müller*": {"Müller^Jörg", "MÜLLER^HANS"},
        "łódź*": {"Łódź^Ż"},
        "O'NEIL^PAT": {"O'Neil^Pat"},
        "100%*": {"100%^Sure"},
        "100%^sure": {"100%^Sure"},
        "A_B*": {"A_B^C"},
        "A_B^C": {"A_B^C"},
        "*山田*": {"Yamada^Tarou=山田^太郎=やまだ^たろう"},
        "yamada^tarou*": {"Yamada^Tarou=山田^太郎=やまだ^たろう"},
        "nobody": set(),
        "'; DROP TABLE study; --": set(),
        "%": set(),
        "_*": set(),
        "%s%(p0)s*": set(),
    }.items():
        assert matched(database, "PatientName", value) == expected, value


def test_a_persons_name_of_a_study_is_matched_alike(database: Database) -> None:
    fill(database, "referring_physician_name", ["Curie^Marie", "ÇELİK^Ayşe"])
    assert matched(database, "ReferringPhysicianName", "curie^m*") == {"Curie^Marie"}
    assert matched(database, "ReferringPhysicianName", "çel*") == {"ÇELİK^Ayşe"}


def test_identifiers_are_matched_exactly_but_for_wildcards(database: Database) -> None:
    fill(database, "patient_id", ["A1", "a1", "A_1", "A%1", "A\\1", "AB1", "*"])
    assert matched(database, "PatientID", "A1") == {"A1"}
    assert matched(database, "PatientID", "A?1") == {"A_1", "A%1", "A\\1", "AB1"}
    assert matched(database, "PatientID", "A_1") == {"A_1"}
    assert matched(database, "PatientID", "A%*") == {"A%1"}
    assert matched(database, "PatientID", "A_*") == {"A_1"}
    assert matched(database, "PatientID", "A1\\AB1") == {"A1", "AB1"}
    assert matched(database, "PatientID", "A1\\") == {"A1"}


def test_code_strings(database: Database) -> None:
    fill(database, "modality", ["CT", "MR", "US", "CR"])
    assert matched(database, "Modality", "CT") == {"CT"}
    assert matched(database, "Modality", "ct") == {"CT"}
    assert matched(database, "Modality", "C?") == {"CT", "CR"}
    assert matched(database, "Modality", "CT\\MR") == {"CT", "MR"}
    assert matched(database, "Modality", "C") == set()


def test_dates(database: Database) -> None:
    fill(database, "study_date", ["20260101", "20260115", "20260131", "", "20251231"])
    for value, expected in {
        "20260115": {"20260115"},
        "2026.01.15": {"20260115"},
        "20260101-20260131": {"20260101", "20260115", "20260131"},
        "20260115-": {"20260115", "20260131"},
        "-20260101": {"20251231", "20260101"},
        "20260102-20260103": set(),
        "20260131-20260101": set(),
        "": {"20260101", "20260115", "20260131", "", "20251231"},
    }.items():
        assert matched(database, "StudyDate", value) == expected, value


TIMES = ["10", "1015", "101500", "101500.000000", "101530", "10:15:45", "110000", "235959.999999", "000000", ""]


def test_times_to_the_precision_that_is_asked_for(database: Database) -> None:
    fill(database, "study_time", TIMES)
    for value, expected in {
        "101530": {"101530"},
        "101500": {"101500", "101500.000000"},
        "1015": {"1015", "101500", "101500.000000", "101530", "10:15:45"},
        "10": {"10", "1015", "101500", "101500.000000", "101530", "10:15:45"},
        "10:15:45": {"10:15:45"},
        "101530-110000": {"101530", "10:15:45", "110000"},
        "101531-": {"10:15:45", "110000", "235959.999999"},
        "-1014": {"10", "000000"},
        "-10": set(TIMES) - {"110000", "235959.999999", ""},
        "11-23": {"110000", "235959.999999"},
        "235959-235959": {"235959.999999"},
        "000000": {"000000"},
    }.items():
        assert matched(database, "StudyTime", value) == expected, value


def test_uids_and_lists_of_them(database: Database) -> None:
    volume = new_volume(database)
    for uid in ("1.2.3", "1.2.31", "1.2.4"):
        store(database, volume, record(study_instance_uid=uid))
    assert matched(database, "StudyInstanceUID", "1.2.3") == {"1.2.3"}
    assert matched(database, "StudyInstanceUID", "1.2.3\\1.2.4\\9.9") == {"1.2.3", "1.2.4"}
    assert matched(database, "StudyInstanceUID", "1.2.*") == set()
    assert matched(database, "StudyInstanceUID", "1.2.?") == set()
    assert matched(database, "StudyInstanceUID", "\\".join(f"1.2.{n}" for n in range(2000))) == {
        "1.2.3",
        "1.2.31",
        "1.2.4",
    }


def test_integers_are_matched_as_numbers(database: Database) -> None:
    volume = new_volume(database)
    for number in (1, 11, None):
        store(database, volume, record(series_number=number))
    assert matched(database, "SeriesNumber", "1") == {"1"}
    assert matched(database, "SeriesNumber", "01") == {"1"}
    assert matched(database, "SeriesNumber", "+1") == {"1"}
    assert matched(database, "SeriesNumber", "1\\11") == {"1", "11"}
    assert matched(database, "SeriesNumber", "") == {"1", "11", "None"}
    assert matched(database, "SeriesNumber", "x") == set()
    assert matched(database, "SeriesNumber", "99999999999999") == set()


def test_every_attribute_can_be_a_key_and_an_answer_at_every_level_below_it(database: Database) -> None:
    store(database, new_volume(database), record(patient_name="Doe^Jane", modality="CT", study_date="20260101"))
    for level in Level:
        for attribute in BY_KEYWORD.values():
            wanted = [*BY_KEYWORD, *computed.KEYWORDS, "NoSuchKeyword"]
            for value in ("1", "1*", "1-", "1-2", "1\\2", "x", "20260101-20260102", "-"):
                match = matching.parse(attribute, value)
                if match is not None:
                    list(query.find(database, Question(level, {attribute.keyword: match}, wanted)))
        (row,) = query.find(database, Question(level, {}, wanted))
        assert row["PatientName"] == "Doe^Jane"
        assert ("StudyDate" in row) == (level >= Level.STUDY)


def test_counts_and_modalities_of_a_study(database: Database) -> None:
    volume = new_volume(database)
    for modality, series, number in (("CT", "1", 1), ("CT", "1", 2), ("SR", "2", 1), ("", "3", 1)):
        store(
            database, volume,
            record(patient_id="P", study_instance_uid="1.2", series_instance_uid=f"1.2.{series}", modality=modality,
                   sop_instance_uid=f"1.2.{series}.{number}"),
        )  # fmt: skip
    made = record(patient_id="P", study_instance_uid="1.2", series_instance_uid="1.2.1", sop_instance_uid="1.2.1.1")
    assert store(database, volume, made, b"other", keep_beside=True)[0] == "stored"  # a conflict, not counted
    (row,) = query.find(database, Question(Level.STUDY, {}, list(computed.KEYWORDS)))
    assert row["ModalitiesInStudy"] == "CT\\SR"
    assert row["NumberOfStudyRelatedSeries"] == 3
    assert row["NumberOfStudyRelatedInstances"] == 4
    assert row["NumberOfPatientRelatedStudies"] == 1
    assert len(list(query.find(database, Question(Level.IMAGE, {}, ["SOPInstanceUID"])))) == 4
    for modalities, studies in (("CT", 1), ("SR\\MR", 1), ("MR", 0), ("S*", 1), ("M?", 0), ("*", 1), ("", 1)):
        match = matching.parse(BY_KEYWORD["Modality"], modalities)
        matches = {} if match is None else {"ModalitiesInStudy": match}
        found = list(query.find(database, Question(Level.STUDY, matches, ["StudyInstanceUID"])))
        assert len(found) == studies, modalities


def test_an_object_of_no_patient_is_no_answer_but_can_be_had(database: Database) -> None:
    volume = new_volume(database)
    made = record(
        sop_class_uid="1.2.840.10008.5.1.4.39.1", study_instance_uid="1.5", series_instance_uid="1.5",
        sop_instance_uid="1.5", patient_id="",
    )  # fmt: skip
    store(database, volume, made)
    for level in Level:
        assert list(query.find(database, Question(level, {}, ["StudyInstanceUID"]))) == []
    assert [row["sop_instance_uid"] for row in retrieve.objects_below(database, {"StudyInstanceUID": ["1.5"]})] == [
        "1.5"
    ]


def test_the_newest_studies(database: Database) -> None:
    volume = new_volume(database)
    for number in range(5):
        store(database, volume, record(study_instance_uid=f"1.{number}"))
    assert [row["study_instance_uid"] for row in query.study_list(database, 2)] == ["1.4", "1.3"]
    assert query.study_list(database, 1)[0] | {"last_arrival": None} == {
        "study_instance_uid": "1.4", "study_date": "", "study_description": "", "patient_name": "", "series": 1,
        "objects": 1, "size_bytes": 1000, "tiers": "1", "last_arrival": None,
        "patient_id": query.study_list(database, 1)[0]["patient_id"],
    }  # fmt: skip


def test_availability_is_that_of_the_object_that_is_furthest_away(database: Database) -> None:
    near, far = new_volume(database, 1), new_volume(database, 3)
    keys = []
    for number in (1, 2):
        made = record(patient_id="P", study_instance_uid="1.2", series_instance_uid=f"1.2.{number}")
        keys.append(store(database, near, made)[1])

    def availability(level: Level) -> list[str]:
        rows = query.find(database, Question(level, {}, ["InstanceAvailability"]))
        return sorted(row["InstanceAvailability"] for row in rows)

    assert availability(Level.STUDY) == ["ONLINE"]
    with database.transaction() as connection:
        volumes.add_copy(connection, keys[0], far, "objects/far")
    assert availability(Level.SERIES) == ["ONLINE", "ONLINE"]
    with database.transaction() as connection:
        assert movement.leave(connection, [keys[0]], [near], [near, far]) == 1
    assert availability(Level.IMAGE) == ["NEARLINE", "ONLINE"]
    assert availability(Level.STUDY) == availability(Level.PATIENT) == ["NEARLINE"]
    with database.transaction() as connection:
        for copy in volumes.copies_on(connection, near):
            if copy["object_key"] == keys[1]:
                volumes.set_copy_state(connection, copy["copy_key"], "missing")
    assert availability(Level.SERIES) == ["NEARLINE", "UNAVAILABLE"]
    assert availability(Level.STUDY) == ["UNAVAILABLE"]


def test_what_is_on_a_volume_that_is_not_here_is_offline(database: Database) -> None:
    here, away = new_volume(database, 2), new_volume(database, 2)
    keys = [
        store(database, each, record(study_instance_uid=f"1.3.{each}", patient_id=each))[1] for each in (here, away)
    ]

    def availability() -> list[str]:
        rows = query.find(database, Question(Level.STUDY, {}, ["InstanceAvailability"]))
        return sorted(row["InstanceAvailability"] for row in rows)

    tiers.note_absent(database, [away])
    assert availability() == ["OFFLINE", "ONLINE"]
    with database.transaction() as connection:
        volumes.add_copy(connection, keys[1], here, "objects/second")
    assert availability() == ["ONLINE", "ONLINE"], "another copy of it is here"
    tiers.note_absent(database, [here, away])
    assert availability() == ["OFFLINE", "OFFLINE"]
    tiers.note_absent(database, [])
    assert availability() == ["ONLINE", "ONLINE"]


def test_what_is_only_in_a_repository_is_nearline(database: Database) -> None:
    """After a restore, until its bulk is back; at other times a repository makes nobody look at each object."""
    here, repository = new_volume(database, 1), new_volume(database, 4)
    keys = [
        store(database, each, record(study_instance_uid=f"1.4.{each}", patient_id=each))[1]
        for each in (here, repository)
    ]

    def availability() -> list[str]:
        rows = query.find(database, Question(Level.STUDY, {}, ["InstanceAvailability"]))
        return sorted(row["InstanceAvailability"] for row in rows)

    with database.transaction() as connection:
        connection.execute("UPDATE volume SET is_source = true WHERE tier = 4")
    assert availability() == ["NEARLINE", "ONLINE"]
    tiers.note_absent(database, [repository])
    assert availability() == ["OFFLINE", "ONLINE"]
    tiers.note_absent(database, [])
    with database.transaction() as connection:
        volumes.add_copy(connection, keys[1], here, "objects/back")
        volumes.set_copy_state(connection, volumes.copies_on(connection, here)[0]["copy_key"], "missing")
        volumes.add_copy(connection, keys[0], repository, "objects/shipped")
        connection.execute("UPDATE volume SET is_source = false WHERE tier = 4")
    assert availability() == ["NEARLINE", "ONLINE"], "a copy was lost, and is repaired from there"


def test_a_part_of_a_name_in_any_alphabet(database: Database) -> None:
    fill(database, "patient_name", NAMES)
    for value, expected in {
        "*太*": {"Yamada^Tarou=山田^太郎=やまだ^たろう"},
        "*γμα*": {"ΣΙΓΜΑΣ^Α"},
        "?óDŹ*": {"Łódź^Ż"},
        "*%^s*": {"100%^Sure"},
        "^j?ne": {"Doe^Jane"},
        "*田^*郎": {"Yamada^Tarou=山田^太郎=やまだ^たろう"},
        "yamada*=*太郎": {"Yamada^Tarou=山田^太郎=やまだ^たろう"},
        "yamada*=*次郎": set(),
        "Ｙamada*": {"Yamada^Tarou=山田^太郎=やまだ^たろう"},
        '""': set(),
    }.items():
        assert matched(database, "PatientName", value) == expected, value


def test_empty_values(database: Database) -> None:
    fill(database, "accession_number", ["", "A1"])
    assert matched(database, "AccessionNumber", '""') == {""}
    fill(database, "study_date", ["20260101"])
    assert matched(database, "StudyDate", '""') == {""}
    assert matched(database, "SeriesNumber", '""') == {"None"}
