"""Queries whose dates and times are meant at an offset from UTC of the asker's (Timezone Query Adjustment, PS3.4 C.5).

What is stored is written at the offset that each study says, or at this machine's. The index finds the days around;
what is exact is compared here, on each row's own moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pacs.index import query
from pacs.index.database import Database, Row
from pacs.index.query import Question
from pacs.model import matching, timezone
from pacs.model.attributes import TIME_OF_DATE
from pacs.model.matching import AnyOf, Match, OneOf, Range, Single

_OFFSET = "TimezoneOffsetFromUTC"


def find(
    database: Database, question: Question, offset_minutes: int, is_cancelled: Callable[[], bool]
) -> Iterator[Row]:
    """As query.find, with dates and times of question and answers at this offset from UTC [min]."""
    exact = {each: question.matches[each] for pair in TIME_OF_DATE.items() for each in pair if each in question.matches}
    around = {keyword: match for keyword, match in question.matches.items() if keyword not in exact}
    around |= {date: _around(exact[date]) for date in TIME_OF_DATE if date in exact}
    asked = {pair for pair in TIME_OF_DATE.items() if {*pair} & {*exact, *question.wanted}}
    wanted = dict.fromkeys([*question.wanted, _OFFSET, *(each for pair in asked for each in pair)])
    for row in query.find(database, Question(question.level, around, tuple(wanted)), is_cancelled):
        if _move(row, offset_minutes, exact):
            yield row


def _move(row: Row, offset_minutes: int, exact: dict[str, Match]) -> bool:
    """Move a row's dates and times to an offset; whether they fit what is asked."""
    fits = True
    for date, time in TIME_OF_DATE.items():
        if date not in row:
            continue
        written = timezone.offset_minutes(row.get(_OFFSET) or "")
        if written is None:
            written = timezone.offset_minutes(timezone.local_offset(row[date])) or 0
        row[date], row[time] = timezone.moved(row[date], row[time], written, offset_minutes)
        moment = row[date], row[time].replace(":", "")
        for keyword, value in zip((date, time), moment, strict=True):
            fits = fits and (keyword not in exact or matching.accepts(exact[keyword], *moment, value))
    return fits


def _around(match: Match) -> Match:
    """The days of a match, and two more at each end: offsets are up to 26 hours apart."""
    match match:
        case Single(day) if day:
            return Range(timezone.next_day(day, -2), timezone.next_day(day, 2))
        case OneOf(days):
            return AnyOf(tuple(_around(Single(day)) for day in days))
        case AnyOf(matches):
            return AnyOf(tuple(_around(each) for each in matches))
        case Range(first, last):
            return Range(timezone.next_day(first, -2), timezone.next_day(last, 2))
        case _:
            return match
