"""All rows of an index, named by UIDs and digests instead of keys: two indexes of the same archive have the same ones.

What a rebuild cannot know is left out, and said here:

- keys, `created_at` of volumes, devices and copies, when rules and pins were made, `raised_at` and `resolved_at` of
  conflicts (near, not equal);
- copies that are missing or bad (they have no file), a copy's leaving (it is a good one again);
- associations that brought nothing, refusals, storage commitments, runs, when studies were used, recalls.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

_PATIENT = "p.patient_id || '/' || p.issuer_of_patient_id || '/' || p.lone_study_uid"
_OBJECT = "o.sop_instance_uid || '/' || encode(o.sha256, 'hex')"
_FROM = "a.calling_ae || '/' || a.peer || '/' || a.user_name || '/' || a.opened_at"
_SUBJECT = f"""CASE c.kind WHEN 'study' THEN (SELECT study_instance_uid FROM study WHERE study_key = subject_key)
    WHEN 'series' THEN (SELECT st.study_instance_uid || '/' || series_instance_uid FROM series JOIN study st
                        USING (study_key) WHERE series_key = subject_key)
    WHEN 'patient' THEN (SELECT {_PATIENT} FROM patient p WHERE patient_key = subject_key)
    ELSE (SELECT {_OBJECT} FROM object o WHERE object_key = subject_key) END"""
_OTHER = f"""CASE WHEN c.other_key IS NOT NULL THEN (SELECT {_OBJECT} FROM object o WHERE object_key = c.other_key)
    WHEN c.kind = 'series' THEN (SELECT study_instance_uid FROM study JOIN series USING (study_key)
                                 WHERE series_key::text = c.other) ELSE c.other END"""

_QUERIES = {
    "patient": "SELECT to_jsonb(p) - 'patient_key' AS row FROM patient p",
    "patient_name": f"SELECT n.name_key, {_PATIENT} AS patient FROM patient_name n JOIN patient p USING (patient_key)",
    "patient_sound": f"SELECT s.sound, {_PATIENT} AS patient FROM patient_sound s JOIN patient p USING (patient_key)",
    "study": f"SELECT to_jsonb(s) - '{{study_key,patient_key}}'::text[] AS row, {_PATIENT} AS patient FROM study s"
    " JOIN patient p USING (patient_key)",
    "series": "SELECT to_jsonb(s) - '{study_key,series_key}'::text[] AS row, st.study_instance_uid FROM series s"
    " JOIN study st USING (study_key)",
    "study_modality": "SELECT m.modality, m.study_date, st.study_instance_uid FROM study_modality m"
    " JOIN study st USING (study_key)",
    "stored_syntax": "SELECT sop_class_uid, transfer_syntax_uid FROM stored_syntax",
    "object": "SELECT to_jsonb(o) - '{object_key,series_key,association_key}'::text[] AS row,"
    f" st.study_instance_uid, se.series_instance_uid, {_FROM} AS came_from,"
    " row_number() OVER (ORDER BY o.object_key) AS number FROM object o"
    " JOIN series se USING (series_key) JOIN study st USING (study_key)"
    " LEFT JOIN association a USING (association_key)",
    "copy": f"SELECT {_OBJECT} AS object, c.volume_id::text, c.path FROM copy c JOIN object o USING (object_key)"
    " WHERE c.state IN ('good', 'leaving')",
    "duplicate": f"SELECT {_OBJECT} AS object, d.kind, d.arrived_at, {_FROM} AS came_from FROM duplicate d"
    " JOIN object o USING (object_key) LEFT JOIN association a ON a.association_key = d.association_key"
    " WHERE d.kind <> 'conflict'",
    "kept beside": f"SELECT {_OBJECT} AS object, {_FROM} AS came_from FROM duplicate d"
    " JOIN object o USING (object_key) LEFT JOIN association a ON a.association_key = d.association_key"
    " WHERE d.kind = 'conflict'",
    "conflict": f"SELECT c.kind, {_SUBJECT} AS subject, {_OTHER} AS other, c.came - 'tenant_id' AS came,"
    " c.resolution, c.resolved_at IS NULL AS is_open FROM conflict c",
    "association": "SELECT calling_ae, peer, user_name, opened_at, closed_at, default_character_set FROM association a"
    " WHERE EXISTS (SELECT FROM object o WHERE o.association_key = a.association_key)"
    " OR EXISTS (SELECT FROM duplicate d WHERE d.association_key = a.association_key)",
    "device": "SELECT to_jsonb(d) - 'created_at' AS row FROM device d",
    "api_token": "SELECT to_jsonb(t) AS row FROM api_token t",
    "tier_rule": "SELECT name, rule FROM tier_rule",
    "study_pin": "SELECT st.study_instance_uid, p.reason FROM study_pin p JOIN study st USING (study_key)",
    "volume": "SELECT to_jsonb(v) - '{created_at,absent_since}'::text[] AS row FROM volume v",
}


def all_rows(conninfo: str) -> dict[str, list[str]]:
    """Table → its rows as text, in order."""
    found: dict[str, list[str]] = {}
    with psycopg.connect(conninfo, row_factory=dict_row) as connection:
        for table, query in _QUERIES.items():
            rows: list[dict[str, Any]] = connection.execute(query.encode()).fetchall()
            found[table] = sorted(repr(sorted(row.items(), key=lambda item: item[0])) for row in rows)
    return found
