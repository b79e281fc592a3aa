"""Queries of the patient and study roots (PS3.4 C.6): matches become SQL, rows become answers.

Values go in as parameters only; what is written into the statement are columns of the attribute table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pacs.index.database import Database, Row
from pacs.index.store import DEFAULT_TENANT
from pacs.model.attributes import BY_KEYWORD, Attribute, Level
from pacs.model.matching import Match, OneOf, Range, Single, Wildcard
from pacs.model.record import integer

_TABLE = {Level.PATIENT: "p", Level.STUDY: "st", Level.SERIES: "se", Level.IMAGE: "o"}
_FROM = {
    Level.PATIENT: "patient p",
    Level.STUDY: "study st JOIN patient p USING (patient_key)",
    Level.SERIES: "series se JOIN study st USING (study_key) JOIN patient p USING (patient_key)",
    Level.IMAGE: "object o JOIN series se USING (series_key) JOIN study st USING (study_key)"
    " JOIN patient p USING (patient_key)",
}

#: Attributes that are counted or gathered when a query asks for them (PS3.4 C.3.4), with the level they are of.
COMPUTED: dict[str, tuple[Level, str]] = {
    "NumberOfPatientRelatedStudies": (
        Level.PATIENT,
        "(SELECT count(*) FROM study x WHERE x.patient_key = p.patient_key)",
    ),
    "ModalitiesInStudy": (
        Level.STUDY,
        "(SELECT string_agg(DISTINCT x.modality, '\\' ORDER BY x.modality) FROM series x"
        " WHERE x.study_key = st.study_key AND x.modality <> '')",
    ),
    "SOPClassesInStudy": (
        Level.STUDY,
        "(SELECT string_agg(DISTINCT y.sop_class_uid, '\\' ORDER BY y.sop_class_uid) FROM series x"
        " JOIN object y USING (series_key) WHERE x.study_key = st.study_key)",
    ),
    "NumberOfStudyRelatedSeries": (Level.STUDY, "(SELECT count(*) FROM series x WHERE x.study_key = st.study_key)"),
    "NumberOfStudyRelatedInstances": (
        Level.STUDY,
        "(SELECT count(*) FROM series x JOIN object y USING (series_key)"
        " WHERE x.study_key = st.study_key AND y.is_current)",
    ),
    "NumberOfSeriesRelatedInstances": (
        Level.SERIES,
        "(SELECT count(*) FROM object y WHERE y.series_key = se.series_key AND y.is_current)",
    ),
}


def find(
    database: Database,
    level: Level,
    matches: Mapping[str, Match],
    wanted: Collection[str],
    modalities_in_study: Match | None = None,
) -> Iterator[Row]:
    """The entities of a level that match, as rows of keyword → value, streamed from a cursor.

    `matches` and `wanted` are keywords of attributes at this level or above; others are left out.
    """
    conditions = [f"{_TABLE[level]}.tenant_id = %(tenant_id)s"]
    parameters: dict[str, Any] = {"tenant_id": DEFAULT_TENANT}
    if level == Level.PATIENT:
        conditions.append("EXISTS (SELECT FROM study x WHERE x.patient_key = p.patient_key AND x.is_patients)")
    else:
        conditions.append("st.is_patients")
    if level == Level.IMAGE:
        conditions.append("o.is_current")
    for keyword, match in matches.items():
        attribute = BY_KEYWORD[keyword]
        if attribute.level <= level:
            conditions.append(_condition(attribute, match, parameters))
    if modalities_in_study is not None and level >= Level.STUDY:
        modality = _condition(BY_KEYWORD["Modality"], modalities_in_study, parameters, "x")
        conditions.append(f"EXISTS (SELECT FROM series x WHERE x.study_key = st.study_key AND {modality})")
    statement = (
        f"SELECT {_columns(level, wanted)} FROM {_FROM[level]} WHERE {' AND '.join(conditions)}"
        f" ORDER BY {_TABLE[level]}.{_KEY[level]}"
    )
    with database.transaction() as connection, connection.cursor(name="find") as cursor:
        cursor.execute(statement.encode(), parameters)
        yield from cursor


_KEY = {Level.PATIENT: "patient_key", Level.STUDY: "study_key", Level.SERIES: "series_key", Level.IMAGE: "object_key"}


def _columns(level: Level, wanted: Collection[str]) -> str:
    columns = ["1 AS one"]
    for keyword in wanted:
        if keyword in BY_KEYWORD and BY_KEYWORD[keyword].level <= level:
            attribute = BY_KEYWORD[keyword]
            columns.append(f'{_TABLE[attribute.level]}.{attribute.column} AS "{keyword}"')
        elif keyword in COMPUTED and COMPUTED[keyword][0] <= level:
            columns.append(f'{COMPUTED[keyword][1]} AS "{keyword}"')
    return ", ".join(columns)


def _condition(attribute: Attribute, match: Match, parameters: dict[str, Any], table: str | None = None) -> str:
    column = f"{table or _TABLE[attribute.level]}.{attribute.column}"
    name = f"p{len(parameters)}"
    fold = _fold if attribute.vr == "PN" else str
    match match:
        case Single(text):
            if attribute.vr == "IS":
                return _integer_condition(column, (text,), name, parameters)
            parameters[name] = text.rstrip("^") if attribute.vr == "PN" else text
            return f"{fold(column)} = {fold(f'%({name})s')}"
        case OneOf(texts):
            if attribute.vr == "IS":
                return _integer_condition(column, texts, name, parameters)
            parameters[name] = list(texts)
            return f"{fold(column)} IN (SELECT {fold('x')} FROM unnest(%({name})s::text[]) x)"
        case Wildcard(pattern):
            parameters[name] = _like(pattern)
            return f"{fold(column)} LIKE {fold(f'%({name})s')}"
        case Range(first, last):
            return _range_condition(column, attribute.vr, first, last, name, parameters)


def _fold(expression: str) -> str:
    """In small letters by Unicode's rules: the database's own locale is C. As in the index patient_by_name."""
    return f'lower({expression} COLLATE "und-x-icu")'


def _integer_condition(column: str, texts: Collection[str], name: str, parameters: dict[str, Any]) -> str:
    """Numbers, not their texts, are compared; what is none matches nothing."""
    parameters[name] = [number for number in map(integer, texts) if number is not None]
    return f"{column} = ANY (%({name})s::integer[])"


def _like(pattern: str) -> str:
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")


def _range_condition(column: str, vr: str, first: str, last: str, name: str, parameters: dict[str, Any]) -> str:
    conditions = [f"{column} <> ''"]
    if vr == "TM":
        column = f"replace({column}, ':', '')"
    if first:
        parameters[name] = first
        conditions.append(f"{column} >= %({name})s")
    if last:
        # A last time of 10 takes in all that begins with 10: to the precision that it is asked with.
        parameters[name + "l"] = last + ("\uffff" if vr == "TM" else "")
        conditions.append(f"{column} <= %({name}l)s")
    return "(" + " AND ".join(conditions) + ")"


def study_list(database: Database, studies_max: int) -> list[Row]:
    """The newest studies for `pacs study list`, with counts, bytes and the tiers their copies are on."""
    with database.transaction() as connection:
        return connection.execute(
            "SELECT st.study_instance_uid, st.study_date, st.study_description, p.patient_id, p.patient_name,"
            " held.series, held.objects, held.size_bytes, held.last_arrival, placed.tiers"
            " FROM (SELECT * FROM study ORDER BY study_key DESC LIMIT %s) st JOIN patient p USING (patient_key)"
            " CROSS JOIN LATERAL (SELECT count(DISTINCT series_key) AS series, count(*) AS objects,"
            "   sum(size_bytes)::bigint AS size_bytes, max(arrived_at) AS last_arrival"
            "   FROM series JOIN object USING (series_key) WHERE study_key = st.study_key) held"
            " CROSS JOIN LATERAL (SELECT string_agg(DISTINCT tier::text, '+') AS tiers"
            "   FROM series JOIN object USING (series_key) JOIN copy USING (object_key) JOIN volume USING (volume_id)"
            "   WHERE study_key = st.study_key AND copy.state = 'good') placed"
            " ORDER BY st.study_key DESC",
            (studies_max,),
        ).fetchall()
