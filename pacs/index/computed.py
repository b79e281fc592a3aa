"""Keys that are counted or gathered when a query asks for them (PS3.4 C.3.4, C.6.1.1, C.6.2.1)."""

from __future__ import annotations

from pacs.index import condition
from pacs.index.condition import Parameters
from pacs.model.attributes import BY_KEYWORD, Level
from pacs.model.matching import Match

_SERIES_OF_STUDY = "series x WHERE x.study_key = st.study_key"
_OBJECTS_OF_STUDY = "series x JOIN object y USING (series_key) WHERE x.study_key = st.study_key AND y.is_current"
_OBJECTS = {
    Level.PATIENT: "study w JOIN series x USING (study_key) JOIN object y USING (series_key)"
    " WHERE w.patient_key = p.patient_key AND y.is_current",
    Level.STUDY: _OBJECTS_OF_STUDY,
    Level.SERIES: "object y WHERE y.series_key = se.series_key AND y.is_current",
    Level.IMAGE: "object y WHERE y.object_key = o.object_key",
}

#: Keyword → the level it is of, and its expression; it can be asked for at this level and below.
_COUNTED: dict[str, tuple[Level, str]] = {
    "NumberOfPatientRelatedStudies": (
        Level.PATIENT,
        "(SELECT count(*) FROM study x WHERE x.patient_key = p.patient_key)",
    ),
    "NumberOfPatientRelatedSeries": (
        Level.PATIENT,
        "(SELECT count(*) FROM study w JOIN series x USING (study_key) WHERE w.patient_key = p.patient_key)",
    ),
    "NumberOfPatientRelatedInstances": (Level.PATIENT, f"(SELECT count(*) FROM {_OBJECTS[Level.PATIENT]})"),
    "ModalitiesInStudy": (
        Level.STUDY,
        f"(SELECT string_agg(DISTINCT x.modality, '\\' ORDER BY x.modality) FROM {_SERIES_OF_STUDY}"
        " AND x.modality <> '')",
    ),
    "SOPClassesInStudy": (
        Level.STUDY,
        f"(SELECT string_agg(DISTINCT y.sop_class_uid, '\\' ORDER BY y.sop_class_uid) FROM {_OBJECTS_OF_STUDY})",
    ),
    "NumberOfStudyRelatedSeries": (Level.STUDY, f"(SELECT count(*) FROM {_SERIES_OF_STUDY})"),
    "NumberOfStudyRelatedInstances": (Level.STUDY, f"(SELECT count(*) FROM {_OBJECTS_OF_STUDY})"),
    "NumberOfSeriesRelatedInstances": (Level.SERIES, f"(SELECT count(*) FROM {_OBJECTS[Level.SERIES]})"),
}

# Where nothing was lost, no tier 3 is there, every volume is, and no restore is under way, which is asked once a
# statement, nobody needs to look at each object.
_ALL_ONLINE = (
    "NOT EXISTS (SELECT FROM copy WHERE state IN ('missing', 'bad'))"
    " AND NOT EXISTS (SELECT FROM volume WHERE state <> 'retired'"
    "  AND (tier = 3 OR is_source OR (tier < 4 AND absent_since IS NOT NULL)))"
)
# How far away an object is: the tier of its nearest good copy (a repository's is as far as tier 3's), 8 if that is on a
# volume which is not here, 9 if there is none.
_DISTANCE = (
    "coalesce((SELECT min(CASE WHEN v.absent_since IS NULL THEN least(v.tier, 3) ELSE 8 END) FROM copy c"
    " JOIN volume v USING (volume_id) WHERE c.object_key = y.object_key AND c.state = 'good'), 9)"
)

KEYWORDS = frozenset([*_COUNTED, "InstanceAvailability"])


def expression(keyword: str, level: Level) -> str | None:
    """The expression of a computed key in a query of a level; None if it is not of this level."""
    if keyword == "InstanceAvailability":
        return _availability(level)
    if keyword not in _COUNTED or _COUNTED[keyword][0] > level:
        return None
    return _COUNTED[keyword][1]


def _availability(level: Level) -> str:
    """Of the object that is furthest away (PS3.3 C.4.23.1.1): a study is online when all of it is.

    What lies on a volume that is not attached is offline: somebody has to do something.
    """
    return (
        f"CASE WHEN {_ALL_ONLINE} THEN 'ONLINE' ELSE (SELECT CASE max({_DISTANCE}) WHEN 3 THEN 'NEARLINE'"
        f" WHEN 8 THEN 'OFFLINE' WHEN 9 THEN 'UNAVAILABLE' ELSE 'ONLINE' END FROM {_OBJECTS[level]}) END"
    )


def of_study(keyword: str, match: Match, parameters: Parameters) -> str | None:
    """The condition that a study's ModalitiesInStudy or SOPClassesInStudy matches; None for other keys."""
    if keyword == "ModalitiesInStudy":
        fits = condition.of_column("x.modality", "CS", match, parameters)
        return f"EXISTS (SELECT FROM {_SERIES_OF_STUDY} AND {fits})"
    if keyword == "SOPClassesInStudy":
        fits = condition.of_column("y.sop_class_uid", "UI", match, parameters)
        return f"EXISTS (SELECT FROM {_OBJECTS_OF_STUDY} AND {fits})"
    return None


#: As which attribute a computed key's value is parsed for matching.
MATCHED_AS = {"ModalitiesInStudy": BY_KEYWORD["Modality"], "SOPClassesInStudy": BY_KEYWORD["SOPClassUID"]}
