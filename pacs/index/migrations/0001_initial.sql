-- The index. Every table carries tenant_id. `object` says what an object is, `copy` where its bytes are.
-- Storing an object only inserts (pacs_store below), so that associations never wait for one another's rows.

CREATE TABLE tenant (
    tenant_id smallint PRIMARY KEY,
    name      text NOT NULL UNIQUE
);
INSERT INTO tenant VALUES (1, 'default');

CREATE TABLE volume (
    tenant_id    smallint NOT NULL DEFAULT 1 REFERENCES tenant,
    volume_id    uuid PRIMARY KEY,
    tier         smallint NOT NULL CHECK (tier BETWEEN 1 AND 3),
    root         text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE device (
    tenant_id              smallint NOT NULL DEFAULT 1 REFERENCES tenant,
    name                   text NOT NULL,
    ae_title               text NOT NULL,
    host                   text NOT NULL,
    port                   integer NOT NULL CHECK (port BETWEEN 1 AND 65535),
    -- Further networks it may call from, AE titles it may call with, and names it may call us by.
    networks               text[] NOT NULL DEFAULT '{}',
    aliases                text[] NOT NULL DEFAULT '{}',
    called_ae_titles       text[] NOT NULL DEFAULT '{}',
    -- Its quirks: empty or null where it has none.
    default_character_set  text NOT NULL DEFAULT '',
    pdu_size_bytes_max     integer CHECK (pdu_size_bytes_max >= 4096),
    transfer_syntaxes      text[] NOT NULL DEFAULT '{}',
    -- The client certificate that it must show (hexadecimal), and how many associations it may have at once.
    tls_certificate_sha256 text CHECK (tls_certificate_sha256 ~ '^[0-9a-f]{64}$'),
    associations_max       integer CHECK (associations_max >= 1),
    created_at             timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, name),
    UNIQUE (tenant_id, ae_title)
);

-- What was refused, one row a (caller, address, kind, detail), however often. No patient's data. The oldest are aged
-- out (pacs/index/refusals.py), so that a flood cannot fill the disk.
CREATE TABLE refusal (
    tenant_id        smallint NOT NULL DEFAULT 1 REFERENCES tenant,
    refusal_key      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    calling_ae       text NOT NULL,
    address          text NOT NULL,
    kind             text NOT NULL,
    detail           text NOT NULL,
    called_ae        text NOT NULL,
    device_name      text NOT NULL,
    reason           text NOT NULL,
    wanted           text[] NOT NULL,
    sop_instance_uid text NOT NULL,
    count            bigint NOT NULL,
    first_at         timestamptz NOT NULL,
    last_at          timestamptz NOT NULL,
    dismissed_at     timestamptz,
    UNIQUE (tenant_id, calling_ae, address, kind, detail)
);
CREATE INDEX refusal_by_age ON refusal (last_at);
CREATE INDEX refusal_by_address ON refusal (address, last_at);

-- A study is settled when no association that touched it is open. An association is open while closed_at is null and
-- the receiver that has it still holds its advisory lock (session_key), which it loses when it dies.
CREATE SEQUENCE receiver_session AS integer;
CREATE TABLE association (
    tenant_id       smallint NOT NULL DEFAULT 1 REFERENCES tenant,
    association_key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session_key     integer NOT NULL,
    calling_ae      text NOT NULL,
    peer            text NOT NULL,
    opened_at       timestamptz NOT NULL DEFAULT now(),
    closed_at       timestamptz
);
CREATE INDEX association_open ON association (association_key) WHERE closed_at IS NULL;

CREATE TABLE patient (
    tenant_id            smallint NOT NULL REFERENCES tenant,
    patient_key          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    issuer_of_patient_id text NOT NULL,
    patient_id           text NOT NULL,
    -- The study's UID where the patient's id is empty or stands for "unknown": such an id joins no two studies.
    lone_study_uid       text NOT NULL,
    patient_name         text NOT NULL,
    patient_birth_date   text NOT NULL,
    patient_sex          text NOT NULL,
    UNIQUE (tenant_id, patient_id, issuer_of_patient_id, lone_study_uid)
);
-- The cluster's own locale is C, whose lower() knows ASCII only: names fold by Unicode's rules (index/query.py).
CREATE INDEX patient_by_name ON patient (tenant_id, lower(patient_name COLLATE "und-x-icu") text_pattern_ops);

CREATE TABLE study (
    tenant_id                smallint NOT NULL REFERENCES tenant,
    study_key                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    patient_key              bigint NOT NULL REFERENCES patient,
    study_instance_uid       text NOT NULL,
    study_date               text NOT NULL,
    study_time               text NOT NULL,
    accession_number         text NOT NULL,
    study_id                 text NOT NULL,
    study_description        text NOT NULL,
    referring_physician_name text NOT NULL,
    -- Of a color palette or the like: kept, and retrieved by its own UID, but no answer to a query for studies.
    is_patients              boolean NOT NULL,
    UNIQUE (tenant_id, study_instance_uid)
);
CREATE INDEX study_by_patient ON study (patient_key);
CREATE INDEX study_by_date ON study (tenant_id, study_date);
CREATE INDEX study_by_accession_number ON study (tenant_id, accession_number);

CREATE TABLE series (
    tenant_id           smallint NOT NULL REFERENCES tenant,
    series_key          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_key           bigint NOT NULL REFERENCES study,
    series_instance_uid text NOT NULL,
    modality            text NOT NULL,
    series_number       integer,
    series_date         text NOT NULL,
    series_time         text NOT NULL,
    series_description  text NOT NULL,
    body_part_examined  text NOT NULL,
    protocol_name       text NOT NULL,
    institution_name    text NOT NULL,
    station_name        text NOT NULL,
    manufacturer        text NOT NULL,
    UNIQUE (study_key, series_instance_uid)
);
CREATE INDEX series_by_uid ON series (tenant_id, series_instance_uid);

CREATE TABLE object (
    tenant_id           smallint NOT NULL REFERENCES tenant,
    object_key          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    series_key          bigint NOT NULL REFERENCES series,
    sop_instance_uid    text NOT NULL,
    sop_class_uid       text NOT NULL,
    transfer_syntax_uid text NOT NULL,
    instance_number     integer,
    content_date        text NOT NULL,
    content_time        text NOT NULL,
    number_of_frames    integer,
    sha256              bytea NOT NULL CHECK (length(sha256) = 32),
    size_bytes          bigint NOT NULL,
    association_key     bigint REFERENCES association,
    arrived_at          timestamptz NOT NULL DEFAULT now(),
    -- False for a later object with the same UID and other content: kept beside the first until a person decides.
    is_current          boolean NOT NULL,
    UNIQUE (tenant_id, sop_instance_uid, sha256)
);
CREATE UNIQUE INDEX object_current ON object (tenant_id, sop_instance_uid) WHERE is_current;
CREATE INDEX object_by_series ON object (series_key);
CREATE INDEX object_by_syntax ON object (sop_class_uid, transfer_syntax_uid);

CREATE TABLE copy (
    tenant_id   smallint NOT NULL REFERENCES tenant,
    copy_key    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    object_key  bigint NOT NULL REFERENCES object,
    volume_id   uuid NOT NULL REFERENCES volume,
    path        text NOT NULL,
    state       text NOT NULL DEFAULT 'good' CHECK (state IN ('good', 'missing', 'bad', 'leaving')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- A copy that leaves a volume is no longer given to readers from then on; its file is removed when the last
    -- reader that could have it must be done (archive/move.py).
    left_at     timestamptz,
    UNIQUE (object_key, volume_id),
    UNIQUE (volume_id, path)
);
CREATE INDEX copy_leaving ON copy (volume_id, left_at) WHERE state = 'leaving';

-- What came twice. `kind`: 'same bytes', 'same content' (another encoding), both dropped; 'conflict', kept, see there.
CREATE TABLE duplicate (
    tenant_id       smallint NOT NULL REFERENCES tenant,
    duplicate_key   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    object_key      bigint NOT NULL REFERENCES object,
    association_key bigint REFERENCES association,
    kind            text NOT NULL,
    arrived_at      timestamptz NOT NULL DEFAULT now()
);

-- What came and contradicts what was here. Each is kept, and a person decides (docs/operate/conflicts.md).
--   kind 'content'  other bytes under one SOP Instance UID, in the same series      subject: the object that was current
--        'place'    the same, in another series or study                            subject: the object that was current
--        'series'   one Series Instance UID in two studies                          subject: the earlier series
--        'study'    a study's object of another patient than the study's            subject: the study
--        'patient'  another name under one PatientID                                subject: the patient
-- `other` tells apart what came: the object's key, the series' key, the other patient's identity, the other name.
CREATE TABLE conflict (
    tenant_id      smallint NOT NULL REFERENCES tenant,
    conflict_key   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind           text NOT NULL CHECK (kind IN ('content', 'place', 'series', 'study', 'patient')),
    subject_key    bigint NOT NULL,
    other          text NOT NULL,
    -- The object that came, of 'content' and 'place'.
    other_key      bigint UNIQUE REFERENCES object,
    -- What the index knows of the first object that came with it: the values as they were.
    came           jsonb NOT NULL,
    raised_at      timestamptz NOT NULL DEFAULT now(),
    resolved_at    timestamptz,
    resolution     text,
    UNIQUE (tenant_id, kind, subject_key, other)
);
CREATE INDEX conflict_unresolved ON conflict (conflict_key) WHERE resolved_at IS NULL;

-- The results of what runs by itself, for `pacs check`: the newest row of a kind counts.
CREATE TABLE run (
    tenant_id   smallint NOT NULL DEFAULT 1 REFERENCES tenant,
    run_key     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz NOT NULL DEFAULT now(),
    succeeded   boolean NOT NULL,
    result      jsonb NOT NULL
);
CREATE INDEX run_newest ON run (kind, run_key DESC);

-- Stores one object in one round trip: patient, study, series, object and copy, each only inserted.
--   outcome 'stored'    the object and its copy are new
--           'duplicate' the very bytes are here already: the caller removes its file
--           'other'     the UID is taken by other bytes (their key is in object_key): the caller compares, and calls
--                       again with keep_beside if the content differs
-- A duplicate of which no good copy is left takes the new file as its copy ('stored').
CREATE FUNCTION pacs_store(fields jsonb, file_sha256 bytea, file_size_bytes bigint, file_volume_id uuid,
                           file_path text, with_association bigint, keep_beside boolean)
RETURNS TABLE (outcome text, found_object_key bigint)
LANGUAGE plpgsql AS $$
DECLARE
    tenant     smallint := (fields->>'tenant_id')::smallint;
    series_k   bigint;
    object_k   bigint;
    found_sha  bytea;
BEGIN
    -- One statement, so one snapshot: with two, the same bytes could be committed in between and look like others.
    SELECT o.object_key, o.sha256 INTO object_k, found_sha FROM object o
     WHERE o.tenant_id = tenant AND o.sop_instance_uid = fields->>'sop_instance_uid'
       AND (o.sha256 = file_sha256 OR (o.is_current AND NOT keep_beside))
     ORDER BY (o.sha256 = file_sha256) DESC LIMIT 1;
    IF found_sha = file_sha256 THEN
        RETURN QUERY SELECT * FROM pacs_store_again(tenant, object_k, file_volume_id, file_path, with_association);
        RETURN;
    ELSIF object_k IS NOT NULL THEN
        RETURN QUERY SELECT 'other'::text, object_k;
        RETURN;
    END IF;

    -- Nearly always its series is here, of the same patient: one look instead of three inserts that do nothing.
    SELECT se.series_key INTO series_k
      FROM study st JOIN patient p USING (patient_key) JOIN series se USING (study_key)
     WHERE st.tenant_id = tenant AND st.study_instance_uid = fields->>'study_instance_uid'
       AND se.series_instance_uid = fields->>'series_instance_uid'
       AND p.patient_id = fields->>'patient_id' AND p.issuer_of_patient_id = fields->>'issuer_of_patient_id'
       AND p.lone_study_uid = fields->>'lone_study_uid' AND p.patient_name = fields->>'patient_name';
    IF series_k IS NULL THEN
        series_k := pacs_place(tenant, fields);
    END IF;

    INSERT INTO object (tenant_id, series_key, sop_instance_uid, sop_class_uid, transfer_syntax_uid, instance_number,
                        content_date, content_time, number_of_frames, sha256, size_bytes, association_key, is_current)
    VALUES (tenant, series_k, fields->>'sop_instance_uid', fields->>'sop_class_uid', fields->>'transfer_syntax_uid',
            (fields->>'instance_number')::integer, fields->>'content_date', fields->>'content_time',
            (fields->>'number_of_frames')::integer, file_sha256, file_size_bytes, with_association, NOT keep_beside)
    ON CONFLICT DO NOTHING RETURNING object.object_key INTO object_k;
    IF object_k IS NULL THEN  -- another association was faster with the same UID
        SELECT o.object_key, o.sha256 INTO object_k, found_sha FROM object o
         WHERE o.tenant_id = tenant AND o.sop_instance_uid = fields->>'sop_instance_uid'
         ORDER BY (o.sha256 = file_sha256) DESC, o.is_current DESC LIMIT 1;
        IF found_sha = file_sha256 THEN
            RETURN QUERY SELECT * FROM pacs_store_again(tenant, object_k, file_volume_id, file_path, with_association);
        ELSE
            RETURN QUERY SELECT 'other'::text, object_k;
        END IF;
        RETURN;
    END IF;
    INSERT INTO copy (tenant_id, object_key, volume_id, path) VALUES (tenant, object_k, file_volume_id, file_path);
    IF keep_beside THEN
        INSERT INTO conflict (tenant_id, kind, subject_key, other, other_key, came)
        SELECT tenant, CASE WHEN o.series_key = series_k THEN 'content' ELSE 'place' END, o.object_key,
               object_k::text, object_k, fields
          FROM object o
         WHERE o.tenant_id = tenant AND o.sop_instance_uid = fields->>'sop_instance_uid' AND o.is_current;
        INSERT INTO duplicate (tenant_id, object_key, association_key, kind)
        VALUES (tenant, object_k, with_association, 'conflict');
    END IF;
    RETURN QUERY SELECT 'stored'::text, object_k;
END $$;

CREATE FUNCTION pacs_store_again(tenant smallint, known_key bigint, file_volume_id uuid, file_path text,
                                 with_association bigint)
RETURNS TABLE (outcome text, found_object_key bigint)
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO duplicate (tenant_id, object_key, association_key, kind)
    VALUES (tenant, known_key, with_association, 'same bytes');
    IF EXISTS (SELECT FROM copy c WHERE c.object_key = known_key AND c.state = 'good') THEN
        RETURN QUERY SELECT 'duplicate'::text, known_key;
        RETURN;
    END IF;
    -- Every copy was lost or found bad: the modality's second sending heals it.
    INSERT INTO copy AS c (tenant_id, object_key, volume_id, path)
    VALUES (tenant, known_key, file_volume_id, file_path)
    ON CONFLICT (object_key, volume_id) DO UPDATE SET path = excluded.path, state = 'good', created_at = now();
    RETURN QUERY SELECT 'stored'::text, known_key;
END $$;

-- The patient of an object, made if it is new.
CREATE FUNCTION pacs_patient(tenant smallint, fields jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    patient_k bigint;
BEGIN
    INSERT INTO patient (tenant_id, issuer_of_patient_id, patient_id, lone_study_uid, patient_name,
                         patient_birth_date, patient_sex)
    VALUES (tenant, fields->>'issuer_of_patient_id', fields->>'patient_id', fields->>'lone_study_uid',
            fields->>'patient_name', fields->>'patient_birth_date', fields->>'patient_sex')
    ON CONFLICT DO NOTHING RETURNING patient_key INTO patient_k;
    IF patient_k IS NULL THEN
        SELECT p.patient_key INTO STRICT patient_k FROM patient p
         WHERE p.tenant_id = tenant AND p.patient_id = fields->>'patient_id'
           AND p.issuer_of_patient_id = fields->>'issuer_of_patient_id'
           AND p.lone_study_uid = fields->>'lone_study_uid';
    END IF;
    RETURN patient_k;
END $$;

-- The series of an object, made if it is new, with its study and patient. A study stays with the patient it came with
-- first. What contradicts is raised.
CREATE FUNCTION pacs_place(tenant smallint, fields jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    study_k   bigint;
    series_k  bigint;
    patient_k bigint;
    earlier_k bigint;
    known     record;
BEGIN
    SELECT s.study_key, s.patient_key INTO study_k, patient_k FROM study s
     WHERE s.tenant_id = tenant AND s.study_instance_uid = fields->>'study_instance_uid';
    IF study_k IS NULL THEN
        patient_k := pacs_patient(tenant, fields);
        INSERT INTO study (tenant_id, patient_key, study_instance_uid, study_date, study_time, accession_number, study_id,
                           study_description, referring_physician_name, is_patients)
        VALUES (tenant, patient_k, fields->>'study_instance_uid', fields->>'study_date', fields->>'study_time',
                fields->>'accession_number', fields->>'study_id', fields->>'study_description',
                fields->>'referring_physician_name', (fields->>'is_patients')::boolean)
        ON CONFLICT DO NOTHING RETURNING study_key INTO study_k;
        IF study_k IS NULL THEN  -- another association was faster, perhaps with another patient
            SELECT s.study_key, s.patient_key INTO STRICT study_k, patient_k FROM study s
             WHERE s.tenant_id = tenant AND s.study_instance_uid = fields->>'study_instance_uid';
        END IF;
    END IF;

    SELECT p.patient_id, p.issuer_of_patient_id, p.lone_study_uid, p.patient_name INTO STRICT known
      FROM patient p WHERE p.patient_key = patient_k;
    IF (known.patient_id, known.issuer_of_patient_id, known.lone_study_uid)
       <> (fields->>'patient_id', fields->>'issuer_of_patient_id', fields->>'lone_study_uid') THEN
        PERFORM pacs_raise(tenant, 'study', study_k, pacs_identity(fields), fields);
    ELSIF NOT pacs_same_name(known.patient_name, fields->>'patient_name') THEN
        PERFORM pacs_raise(tenant, 'patient', patient_k, pacs_digest(pacs_folded_name(fields->>'patient_name')),
                           fields);
    END IF;

    INSERT INTO series (tenant_id, study_key, series_instance_uid, modality, series_number, series_date, series_time,
                        series_description, body_part_examined, protocol_name, institution_name, station_name,
                        manufacturer)
    VALUES (tenant, study_k, fields->>'series_instance_uid', fields->>'modality', (fields->>'series_number')::integer,
            fields->>'series_date', fields->>'series_time', fields->>'series_description',
            fields->>'body_part_examined', fields->>'protocol_name', fields->>'institution_name',
            fields->>'station_name', fields->>'manufacturer')
    ON CONFLICT DO NOTHING RETURNING series_key INTO series_k;
    IF series_k IS NULL THEN
        SELECT s.series_key INTO STRICT series_k FROM series s
         WHERE s.study_key = study_k AND s.series_instance_uid = fields->>'series_instance_uid';
        RETURN series_k;
    END IF;
    -- Two associations that bring one new series for two studies at once must see one another.
    PERFORM pg_advisory_xact_lock(hashtextextended(fields->>'series_instance_uid', tenant));
    SELECT min(s.series_key) INTO earlier_k FROM series s
     WHERE s.tenant_id = tenant AND s.series_instance_uid = fields->>'series_instance_uid' AND s.series_key <> series_k;
    IF earlier_k IS NOT NULL THEN
        PERFORM pacs_raise(tenant, 'series', earlier_k, series_k::text, fields);
    END IF;
    RETURN series_k;
END $$;

-- Raises a conflict, once: what was raised or resolved before is let be.
CREATE FUNCTION pacs_raise(tenant smallint, of_kind text, subject bigint, what_other text, fields jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM conflict c WHERE c.tenant_id = tenant AND c.kind = of_kind
                      AND c.subject_key = subject AND c.other = what_other) THEN
        INSERT INTO conflict (tenant_id, kind, subject_key, other, came)
        VALUES (tenant, of_kind, subject, what_other, fields) ON CONFLICT DO NOTHING;
    END IF;
END $$;

CREATE FUNCTION pacs_digest(value text) RETURNS text IMMUTABLE
LANGUAGE sql AS $$ SELECT encode(sha256(convert_to(value, 'UTF8')), 'hex') $$;

-- What tells one patient from another. A digest, as an index entry has 2,700 bytes at most.
CREATE FUNCTION pacs_identity(fields jsonb) RETURNS text IMMUTABLE
LANGUAGE sql AS $$
    SELECT pacs_digest(jsonb_build_array(fields->>'patient_id', fields->>'issuer_of_patient_id',
                                         fields->>'lone_study_uid')::text)
$$;

-- A person's name without what does not tell persons apart: case, accents, and how components are set apart. Its
-- groups (PS3.5 6.2.1) stay apart.
CREATE FUNCTION pacs_folded_name(name text) RETURNS text IMMUTABLE
LANGUAGE sql AS $$
    SELECT regexp_replace(regexp_replace(regexp_replace(
        lower(normalize(name, NFKD) COLLATE "und-x-icu"), '[\u0300-\u036f]', '', 'g'),
        '[\s^,.]+', ' ', 'g'), ' ?(^|=|$) ?', '\1', 'g')
$$;

-- Whether a name can be a known patient's, spelled in another way: each group that both have is the same. A
-- name that says nothing contradicts none.
CREATE FUNCTION pacs_same_name(known text, came text) RETURNS boolean IMMUTABLE
LANGUAGE sql AS $$
    SELECT known = came OR pacs_folded_name(came) = '' OR (
        SELECT coalesce(bool_and(a.part = b.part), false)
          FROM string_to_table(pacs_folded_name(known), '=') WITH ORDINALITY a(part, number)
          JOIN string_to_table(pacs_folded_name(came), '=') WITH ORDINALITY b(part, number) USING (number)
         WHERE a.part <> '' AND b.part <> '')
$$;
