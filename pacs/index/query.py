"""Queries of the patient and study roots (PS3.4 C.6): what is asked for becomes statements, rows become answers.

An answer is never held open for a slow peer: a query reads page by page, each page a statement of its own, and keeps
only where it stands. There are two ways to go through what matches:

- *gather*: an index finds the few that match: the first page at once; where that is not all, the keys of all others (8
  bytes each), then their pages by those.
- *walk*: much of the archive may match; the pages follow an index from its end, each begins where the last one ended.

Which it is follows from the keys that are asked for, not from PostgreSQL's estimate of how many match: an estimate that
is wrong by much would walk through the whole archive for a patient who is not there.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pacs.index import computed, condition
from pacs.index.condition import TABLE, Parameters
from pacs.index.database import Database, Row
from pacs.index.store import DEFAULT_TENANT
from pacs.model.attributes import BY_KEYWORD, SEQUENCE_BY_KEYWORD, Level
from pacs.model.matching import AnyOf, Item, Match, OneOf, Range, Single

#: Rows of a query's first page, and the most of a later one.
PAGE_ROWS_FIRST, PAGE_ROWS_MAX = 50, 500

#: How many keys a walk looks at in one statement: some tenths of a second's work if hardly any of them match.
STRETCH_KEYS = 50_000

_FROM = {
    Level.PATIENT: "patient p",
    Level.STUDY: "study st JOIN patient p USING (patient_key)",
    Level.SERIES: "series se JOIN study st USING (study_key) JOIN patient p USING (patient_key)",
    Level.IMAGE: "object o JOIN series se USING (series_key) JOIN study st USING (study_key)"
    " JOIN patient p USING (patient_key)",
}
_FROM_MODALITY = "study_modality m JOIN study st USING (study_key) JOIN patient p USING (patient_key)"
_KEY = {
    Level.PATIENT: "p.patient_key",
    Level.STUDY: "st.study_key",
    Level.SERIES: "se.series_key",
    Level.IMAGE: "o.object_key",
}


@dataclass(frozen=True)
class Question:
    """What a query asks: the level, what must match by keyword, and the keywords that an answer shall have.

    Keys below the level are left out, as are those that the index does not know.
    """

    level: Level
    matches: Mapping[str, Match] = field(default_factory=dict)
    wanted: Collection[str] = ()


@dataclass(frozen=True)
class _Plan:
    """A way through what matches. `order`: the columns that a walk follows backwards; none to gather."""

    tables: str
    order: tuple[str, ...] = ()


def _never() -> bool:
    return False


def find(database: Database, question: Question, is_cancelled: Callable[[], bool] = _never) -> Iterator[Row]:
    """The entities that match, as rows of keyword → value; a sequence's value is a list of items. No order is promised.

    Whoever does not take all of it leaves nothing open. It ends early if is_cancelled says so between two statements.
    """
    plan = _plan(question)
    if plan.order:
        return _walk(database, question, plan, is_cancelled)
    return _gather(database, question, plan)


def _plan(question: Question) -> _Plan:
    level, matches = question.level, question.matches
    if any(condition.is_selective(keyword, match) for keyword, match in matches.items()):
        return _Plan(_FROM[level])
    has_dates = isinstance(matches.get("StudyDate"), (Single, OneOf, Range, AnyOf))
    if level != Level.STUDY:
        return _Plan(_FROM[level]) if has_dates and level > Level.STUDY else _Plan(_FROM[level], (_KEY[level],))
    modality = matches.get("ModalitiesInStudy")
    if isinstance(modality, Single) and modality.value:
        return _Plan(_FROM_MODALITY, ("m.study_date", "m.study_key"))
    return _Plan(_FROM[level], ("st.study_date", "st.study_key") if has_dates else ("st.study_key",))


def _conditions(question: Question, plan: _Plan, parameters: Parameters) -> list[str]:
    level = question.level
    conditions = _of_tenant(level)
    if level == Level.PATIENT:
        conditions.append("EXISTS (SELECT FROM study x WHERE x.patient_key = p.patient_key AND x.is_patients)")
    else:
        conditions.append("st.is_patients")
    if level == Level.IMAGE:
        conditions.append("o.is_current")
    for keyword, match in question.matches.items():
        if keyword in BY_KEYWORD and BY_KEYWORD[keyword].level <= level:
            conditions.append(condition.of(BY_KEYWORD[keyword], match, parameters))
        elif keyword in SEQUENCE_BY_KEYWORD and SEQUENCE_BY_KEYWORD[keyword].level <= level:
            assert isinstance(match, Item)
            conditions.append(condition.of_sequence(SEQUENCE_BY_KEYWORD[keyword], match, parameters))
        elif keyword in computed.MATCHED_AS and level >= Level.STUDY:
            conditions.append(_of_study(keyword, match, plan, parameters))
    if plan.order[:1] == ("m.study_date",):
        conditions += _dates_of_walk(question, parameters)
    return conditions


def _of_tenant(level: Level) -> list[str]:
    """Every table's tenant: all indexes begin with it, and one that is not given is not used."""
    return [f"{TABLE[each]}.tenant_id = {DEFAULT_TENANT}" for each in Level if each <= level]


def _of_study(keyword: str, match: Match, plan: _Plan, parameters: Parameters) -> str:
    if keyword == "ModalitiesInStudy" and plan.order[:1] == ("m.study_date",):
        return f"m.tenant_id = {DEFAULT_TENANT} AND {condition.of_column('m.modality', 'CS', match, parameters)}"
    found = computed.of_study(keyword, match, parameters)
    assert found is not None
    return found


def _dates_of_walk(question: Question, parameters: Parameters) -> list[str]:
    """The study's date again, on the index that the walk by modality follows."""
    match = question.matches.get("StudyDate")
    return [] if match is None else [condition.of_column("m.study_date", "DA", match, parameters)]


def _walk(database: Database, question: Question, plan: _Plan, is_cancelled: Callable[[], bool]) -> Iterator[Row]:
    parameters = Parameters()
    conditions = _conditions(question, plan, parameters)
    places = ", ".join(plan.order)
    statement = (
        f"SELECT {_columns(question)}, {', '.join(f'{place} AS _{number}' for number, place in enumerate(plan.order))}"
        f" FROM {plan.tables} WHERE {' AND '.join(conditions)}"
    )
    order = ", ".join(f"{column} DESC" for column in plan.order)
    last: tuple[Any, ...] = ()
    # By its key alone a walk knows how far it has come: it looks at a stretch at a time, however few of it match.
    stretch = STRETCH_KEYS if len(plan.order) == 1 else 0
    if stretch:
        last = (_newest(database, question.level) + 1,)
    size = PAGE_ROWS_FIRST
    while not is_cancelled():
        further = f" AND ({places}) < ({', '.join(f'%(last{n})s' for n in range(len(last)))})" if last else ""
        if stretch:
            further += f" AND {places} >= {last[0] - stretch}"
        rows = _read(
            database,
            f"{statement}{further} ORDER BY {order} LIMIT {size}",
            parameters | {f"last{number}": value for number, value in enumerate(last)},
        )
        yield from rows
        if len(rows) == size:
            last = tuple(rows[-1][f"_{number}"] for number in range(len(plan.order)))
        elif stretch and last[0] > stretch:
            last = (last[0] - stretch,)
        else:
            return
        size = min(2 * size, PAGE_ROWS_MAX)


def _newest(database: Database, level: Level) -> int:
    key = _KEY[level]
    with database.lent_connection() as connection:
        row = connection.execute(
            f"SELECT coalesce(max({key}), 0) AS newest FROM {_FROM[level].partition(' JOIN ')[0]}".encode()
        ).fetchone()
    assert row is not None
    return int(row["newest"])


def _gather(database: Database, question: Question, plan: _Plan) -> Iterator[Row]:
    parameters = Parameters()
    key = _KEY[question.level]
    # What belongs to a study comes as it arrived, all else from the newest on.
    direction, beyond = ("ASC", ">") if question.level > Level.STUDY else ("DESC", "<")
    found = f"SELECT {key} AS key FROM {plan.tables} WHERE {' AND '.join(_conditions(question, plan, parameters))}"
    page = f"SELECT {_columns(question)}, {key} AS _key FROM {plan.tables} WHERE {key} = ANY "
    order = f" ORDER BY {key} {direction}"
    # Most queries are done with this: one statement, one round trip. Materialized, as for a LIMIT the planner would
    # rather walk through the keys until enough match.
    first = f"(ARRAY(SELECT key FROM found ORDER BY key {direction} LIMIT {PAGE_ROWS_FIRST}))"
    rows = _read(database, f"WITH found AS MATERIALIZED ({found}) {page}{first}{order}", parameters)
    yield from rows
    if len(rows) < PAGE_ROWS_FIRST:
        return
    keys = _keys(database, f"{found} AND {key} {beyond} %(last)s", parameters | {"last": rows[-1]["_key"]}, direction)
    at, size = 0, 2 * PAGE_ROWS_FIRST
    while at < len(keys):
        yield from _read(database, f"{page}(%(keys)s::bigint[]){order}", {"keys": keys[at : at + size].tolist()})
        at, size = at + size, min(2 * size, PAGE_ROWS_MAX)


def _keys(database: Database, statement: str, parameters: Mapping[str, Any], direction: str) -> array[int]:
    """All keys that a statement finds. One value of 8 bytes a key: rows would take ten times that of our memory."""
    wanted = f"SELECT string_agg(int8send(key), '' ORDER BY key {direction}) AS keys FROM ({statement}) found"
    with database.lent_connection() as connection:
        row = connection.execute(wanted.encode(), parameters, prepare=False, binary=True).fetchone()
    assert row is not None
    keys = array("q", row["keys"] or b"")
    if sys.byteorder == "little":
        keys.byteswap()
    return keys


def _read(database: Database, statement: str, parameters: Mapping[str, Any]) -> list[Row]:
    """A page. It is planned with its values in it: a prefix that is searched for says which index serves."""
    with database.lent_connection() as connection:
        return connection.execute(statement.encode(), parameters, prepare=False).fetchall()


def _columns(question: Question) -> str:
    columns = ["1 AS one"]
    for keyword in question.wanted:
        known = BY_KEYWORD.get(keyword) or SEQUENCE_BY_KEYWORD.get(keyword)
        if known is not None and known.level <= question.level:
            columns.append(f'{TABLE[known.level]}.{known.column} AS "{keyword}"')
        elif (found := computed.expression(keyword, question.level)) is not None:
            columns.append(f'{found} AS "{keyword}"')
    return ", ".join(columns)


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
