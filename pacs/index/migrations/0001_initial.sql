-- The index. Every table carries tenant_id. `object` says what an object is, `copy` where its bytes are.
-- Storing an object only inserts (pacs_store below), so that associations never wait for one another's rows.

-- Both are PostgreSQL's own and trusted: the owner of a database may create them.
CREATE EXTENSION IF NOT EXISTS pg_trgm;        -- names by any part of them
CREATE EXTENSION IF NOT EXISTS fuzzystrmatch;  -- names by their sound

CREATE TABLE tenant (
    tenant_id smallint PRIMARY KEY,
    name      text NOT NULL UNIQUE
);
INSERT INTO tenant VALUES (1, 'default');

-- draining: nothing new is placed there. retired: it was emptied, and is no longer looked for. serving_id is what copies
-- refer to: a volume with a copy cannot be retired, and a copy cannot come to one that is, whoever is on its way there.
CREATE TABLE volume (
    tenant_id    smallint NOT NULL DEFAULT 1 REFERENCES tenant,
    volume_id    uuid PRIMARY KEY,
    name         text NOT NULL UNIQUE,
    tier         smallint NOT NULL CHECK (tier BETWEEN 1 AND 5),  -- 4: a backup repository; 5: the standby's
    kind         text NOT NULL CHECK (kind IN ('local', 'nfs', 'smb', 's3', 'sftp')),
    location     text NOT NULL,  -- a folder, or s3://bucket/prefix
    options      jsonb NOT NULL DEFAULT '{}',  -- of its kind; no secrets, which are in files of config/volumes
    state        text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'draining', 'retired')),
    serving_id   uuid UNIQUE GENERATED ALWAYS AS (CASE WHEN state <> 'retired' THEN volume_id END) STORED,
    -- Since when the worker has not found it: what is on it only is offline.
    absent_since timestamptz,
    -- How soon every copy there is read again, where a person said so; else as the settings say.
    scrub_days   double precision CHECK (scrub_days > 0),
    -- Of a repository that a restore came from: there may be objects that are nowhere else yet.
    is_source    boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL DEFAULT now()
);

-- How far a repository has what arrived: of the objects up to this key each has a row in `copy` there, or had no good
-- copy to be read. A look at what is to be shipped begins here (archive/shipping.py).
CREATE TABLE shipping (
    tenant_id  smallint NOT NULL DEFAULT 1 REFERENCES tenant,
    volume_id  uuid PRIMARY KEY REFERENCES volume ON DELETE CASCADE,
    position   bigint NOT NULL DEFAULT 0,
    -- It may hold objects that have no row: each is looked for there before it is sent.
    may_have   boolean NOT NULL DEFAULT false,
    -- When all of the archive was last looked through.
    swept_at   timestamptz,
    -- Why the last turn did not ship all; empty if it did.
    last_error text NOT NULL DEFAULT '',
    turned_at  timestamptz
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
    -- Whether it is called over TLS; the certificate that it must show (hexadecimal), calling or called; and how many
    -- associations it may have at once.
    tls                    boolean NOT NULL DEFAULT false,
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
    user_name       text NOT NULL DEFAULT '',  -- who the peer said its user is (PS3.7 D.3.3.7)
    tls_certificate_sha256 text NOT NULL DEFAULT '',  -- that the peer showed, hexadecimal: for the audit log
    -- What its objects that say no Specific Character Set were read with: its device's, when it called.
    default_character_set text NOT NULL DEFAULT '',
    opened_at       timestamptz NOT NULL DEFAULT now(),
    closed_at       timestamptz
);
CREATE INDEX association_open ON association (association_key) WHERE closed_at IS NULL;

-- Who may ask over the web (docs/operate/web-access.md). The token itself is nowhere, only its SHA-256.
CREATE TABLE api_token (
    tenant_id  smallint NOT NULL DEFAULT 1 REFERENCES tenant,
    name       text NOT NULL,
    sha256     text NOT NULL UNIQUE CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    scopes     text[] NOT NULL,
    networks   text[] NOT NULL DEFAULT '{}',  -- where it may be used; empty: anywhere
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    PRIMARY KEY (tenant_id, name)
);

-- Up to where settled studies have their metadata written (pacs/archive/metadata_writer.py): a matter of speed only.
CREATE TABLE metadata_mark (
    tenant_id  smallint PRIMARY KEY REFERENCES tenant,
    object_key bigint NOT NULL
);
INSERT INTO metadata_mark VALUES (1, 0);

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
CREATE INDEX patient_by_birth_date ON patient (tenant_id, patient_birth_date);

-- What a patient is found by, folded by pacs/model/names.py: a row a component group of the name (alphabetic,
-- ideographic, phonetic), and a row a sound of a word of it.
CREATE TABLE patient_name (
    tenant_id   smallint NOT NULL,
    name_key    text COLLATE "C" NOT NULL,
    patient_key bigint NOT NULL REFERENCES patient ON DELETE CASCADE,
    PRIMARY KEY (tenant_id, name_key, patient_key)
);
CREATE INDEX patient_name_of ON patient_name (patient_key);
-- For `*smith*`, some 100 bytes a patient. The cluster's locale is C, in which pg_trgm sees letters of ASCII only: all
-- others go in by their numbers (names.ascii_pattern is the other side).
CREATE FUNCTION pacs_ascii(name_key text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN name_key ~ '^[ -~]*$' THEN name_key ELSE (
        SELECT string_agg(CASE WHEN c < chr(128) THEN c ELSE 'x' || to_hex(ascii(c)) END, '' ORDER BY i)
          FROM generate_series(1, length(name_key)) i, LATERAL substr(name_key, i, 1) c) END;
$$;
CREATE INDEX patient_name_parts ON patient_name USING gin (pacs_ascii(name_key) gin_trgm_ops)
    WITH (fastupdate = off);  -- no object waits for a list that has grown long
CREATE TABLE patient_sound (
    tenant_id   smallint NOT NULL,
    sound       text COLLATE "C" NOT NULL,
    patient_key bigint NOT NULL REFERENCES patient ON DELETE CASCADE,
    PRIMARY KEY (tenant_id, sound, patient_key)
);
CREATE INDEX patient_sound_of ON patient_sound (patient_key);

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
    referring_physician_name_key text NOT NULL,  -- its component groups folded, "=" between them
    timezone_offset          text NOT NULL,
    procedure_codes          jsonb,              -- of the Procedure Code Sequence: items of keyword and value
    -- Of a color palette or the like: kept, and retrieved by its own UID, but no answer to a query for studies.
    is_patients              boolean NOT NULL,
    UNIQUE (tenant_id, study_instance_uid)
);
CREATE INDEX study_by_patient ON study (patient_key);
CREATE INDEX study_by_date ON study (tenant_id, study_date, study_key);  -- and the order of a query's pages
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
    performed_date      text NOT NULL,
    performed_time      text NOT NULL,
    request_attributes  jsonb,  -- of the Request Attributes Sequence: items of keyword and value
    UNIQUE (study_key, series_instance_uid)
);
CREATE INDEX series_by_uid ON series (tenant_id, series_instance_uid);
CREATE INDEX series_by_request ON series USING gin (request_attributes jsonb_path_ops) WITH (fastupdate = off)
    WHERE request_attributes IS NOT NULL;

-- The modalities of studies, for worklists by modality and date.
CREATE TABLE study_modality (
    tenant_id  smallint NOT NULL,
    modality   text NOT NULL,
    study_date text NOT NULL,
    study_key  bigint NOT NULL REFERENCES study ON DELETE CASCADE,
    PRIMARY KEY (tenant_id, modality, study_date, study_key)
);
CREATE INDEX study_modality_of ON study_modality (study_key);

-- Which transfer syntaxes there are of a class: of the first object of each series.
CREATE TABLE stored_syntax (
    tenant_id           smallint NOT NULL,
    sop_class_uid       text NOT NULL,
    transfer_syntax_uid text NOT NULL,
    PRIMARY KEY (tenant_id, sop_class_uid, transfer_syntax_uid)
);

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
    -- Not now(): of two objects that wait for one another, the one that waited arrived later. A rebuild follows it.
    arrived_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- False for a later object with the same UID and other content: kept beside the first until a person decides.
    is_current          boolean NOT NULL,
    UNIQUE (tenant_id, sop_instance_uid, sha256)
);
CREATE UNIQUE INDEX object_current ON object (tenant_id, sop_instance_uid) WHERE is_current;
CREATE INDEX object_by_series ON object (series_key, is_current);  -- counts are taken from it alone

CREATE TABLE copy (
    tenant_id   smallint NOT NULL REFERENCES tenant,
    copy_key    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    object_key  bigint NOT NULL REFERENCES object,
    volume_id   uuid NOT NULL REFERENCES volume (serving_id),
    path        text NOT NULL,
    state       text NOT NULL DEFAULT 'good' CHECK (state IN ('good', 'missing', 'bad', 'leaving')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- A copy that leaves a volume is no longer given to readers from then on; its file is removed when the last
    -- reader that could have it must be done (archive/move.py).
    left_at     timestamptz,
    UNIQUE (object_key, volume_id),
    UNIQUE (volume_id, path)
);
CREATE INDEX copy_lost ON copy (copy_key) WHERE state IN ('missing', 'bad');
CREATE INDEX copy_leaving ON copy (volume_id, left_at) WHERE state = 'leaving';

-- When the copies of a folder (`objects/<tenant>/<yyyy>/<mm>/<dd>/` on a volume) were last read and compared with their
-- digests: every copy in service that was there at verified_at. A copy that came later counts from its created_at, when
-- it was written or copied here. So a copy's date costs no write to its row: docs/operate/scrub.md has what that saves.
CREATE TABLE fixity (
    tenant_id   smallint NOT NULL DEFAULT 1 REFERENCES tenant,
    volume_id   uuid NOT NULL REFERENCES volume ON DELETE CASCADE,
    folder      text NOT NULL,
    -- What was in it when it was last looked at (sized_at), and since when the oldest of it is there.
    copies      bigint NOT NULL,
    size_bytes  bigint NOT NULL,
    oldest_at   timestamptz NOT NULL,
    sized_at    timestamptz NOT NULL DEFAULT now(),
    -- A reading that was begun: since when, and the last path that it has come to.
    begun_at    timestamptz,
    position    text NOT NULL DEFAULT '',
    verified_at timestamptz,
    PRIMARY KEY (volume_id, folder)
) WITH (fillfactor = 70);

-- Every time that a copy was found missing or bad, by whoever found it, and what became of it. Kept by triggers, so
-- that a copy cannot go out of service without being told of here.
CREATE TABLE damage (
    tenant_id   smallint NOT NULL DEFAULT 1 REFERENCES tenant,
    damage_key  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    copy_key    bigint NOT NULL,
    object_key  bigint NOT NULL REFERENCES object ON DELETE CASCADE,
    volume_id   uuid NOT NULL REFERENCES volume ON DELETE CASCADE,
    path        text NOT NULL,
    state       text NOT NULL,
    found_at    timestamptz NOT NULL DEFAULT now(),
    tries       integer NOT NULL DEFAULT 0,
    next_try_at timestamptz NOT NULL DEFAULT now(),
    last_error  text NOT NULL DEFAULT '',
    settled_at  timestamptz,
    outcome     text NOT NULL DEFAULT ''  -- repaired, found well, healed (by another sending), forgotten
);
CREATE UNIQUE INDEX damage_open ON damage (copy_key) WHERE settled_at IS NULL;
CREATE INDEX damage_of_object ON damage (object_key);
CREATE INDEX damage_settled ON damage (settled_at) WHERE settled_at IS NOT NULL;

CREATE FUNCTION pacs_note_damage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.state IN ('missing', 'bad') THEN
        INSERT INTO damage (tenant_id, copy_key, object_key, volume_id, path, state)
        VALUES (NEW.tenant_id, NEW.copy_key, NEW.object_key, NEW.volume_id, NEW.path, NEW.state)
        ON CONFLICT (copy_key) WHERE settled_at IS NULL DO UPDATE SET path = excluded.path, state = excluded.state;
    ELSE
        UPDATE damage SET settled_at = now(), outcome = CASE WHEN outcome <> '' THEN outcome
               WHEN TG_OP = 'DELETE' THEN 'forgotten' ELSE 'healed' END
         WHERE copy_key = OLD.copy_key AND settled_at IS NULL;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER copy_damaged AFTER UPDATE ON copy FOR EACH ROW
    WHEN (OLD.state IN ('missing', 'bad') OR NEW.state IN ('missing', 'bad')) EXECUTE FUNCTION pacs_note_damage();
CREATE TRIGGER copy_forgotten AFTER DELETE ON copy FOR EACH ROW
    WHEN (OLD.state IN ('missing', 'bad')) EXECUTE FUNCTION pacs_note_damage();

-- What came twice. `kind`: 'same bytes', 'same content' (another encoding), both dropped; 'conflict', kept, see there.
CREATE TABLE duplicate (
    tenant_id       smallint NOT NULL REFERENCES tenant,
    duplicate_key   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    object_key      bigint NOT NULL REFERENCES object,
    association_key bigint REFERENCES association,
    kind            text NOT NULL,
    arrived_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Up to where receipts are written (pacs/archive/receipts.py): of all that came before, there is one.
CREATE TABLE receipt_mark (
    tenant_id     smallint PRIMARY KEY REFERENCES tenant,
    object_key    bigint NOT NULL,
    duplicate_key bigint NOT NULL
);
INSERT INTO receipt_mark VALUES (1, 0, 0);

-- Up to where what arrived is in the audit log (pacs/archive/audit_arrivals.py), the same way.
CREATE TABLE audit_mark (
    tenant_id     smallint PRIMARY KEY REFERENCES tenant,
    object_key    bigint NOT NULL,
    duplicate_key bigint NOT NULL
);
INSERT INTO audit_mark VALUES (1, 0, 0);

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

-- Storage commitment (PS3.4 J): what a device asked us to answer for, until it has our answer.
CREATE TABLE commitment (
    tenant_id       smallint NOT NULL DEFAULT 1 REFERENCES tenant,
    commitment_key  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction_uid text NOT NULL,
    calling_ae      text NOT NULL,
    peer            text NOT NULL,
    referenced      jsonb NOT NULL,  -- [[SOP class, SOP instance], ...]
    -- Its transaction UID was taken by an earlier request for other objects: all of it fails with 0x0131.
    is_duplicate    boolean NOT NULL,
    reasons         jsonb,           -- beside each of referenced 0, or its failure reason; null: not read yet
    verified_at     timestamptz,
    state           text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'reported', 'given up')),
    attempts        integer NOT NULL DEFAULT 0,
    last_error      text NOT NULL DEFAULT '',
    requested_at    timestamptz NOT NULL DEFAULT now(),
    -- Whoever works on it moves this on, so that nobody else does, and so that it is due again when they die.
    next_try_at     timestamptz NOT NULL DEFAULT now(),
    reported_at     timestamptz
);
CREATE UNIQUE INDEX commitment_transaction ON commitment (tenant_id, calling_ae, transaction_uid) WHERE NOT is_duplicate;
CREATE INDEX commitment_due ON commitment (next_try_at) WHERE state = 'open';

-- Movement between tiers (docs/operate/tiers.md). Rules and pins are journalled; use and recalls are not, and a rebuilt
-- index counts a study's last use from its arrival.
CREATE TABLE tier_rule (
    tenant_id smallint NOT NULL DEFAULT 1 REFERENCES tenant,
    name      text NOT NULL,
    rule      jsonb NOT NULL,  -- pacs/model/tier_rules.py: Rule.values
    added_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, name)
);
CREATE TABLE study_pin (
    tenant_id smallint NOT NULL DEFAULT 1 REFERENCES tenant,
    study_key bigint PRIMARY KEY REFERENCES study ON DELETE CASCADE,
    reason    text NOT NULL DEFAULT '',
    pinned_at timestamptz NOT NULL DEFAULT now()
);
-- When a study was last retrieved: written behind, at most once an hour, never by a store.
CREATE TABLE study_use (
    tenant_id smallint NOT NULL DEFAULT 1 REFERENCES tenant,
    study_key bigint PRIMARY KEY REFERENCES study ON DELETE CASCADE,
    used_at   timestamptz NOT NULL DEFAULT now()
);
-- A restore from a repository: what it found there, and how much is to come back behind it.
CREATE TABLE restore (
    tenant_id   smallint NOT NULL DEFAULT 1 REFERENCES tenant,
    restore_key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    restore_id  uuid NOT NULL UNIQUE,  -- one run of `pacs restore`, however often it was killed and run again
    repository  text NOT NULL,
    point       text NOT NULL,
    restored_to timestamptz NOT NULL,  -- what came later is not here
    studies     integer NOT NULL DEFAULT 0,
    objects     bigint NOT NULL DEFAULT 0,
    size_bytes  bigint NOT NULL DEFAULT 0,
    begun_at    timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
-- Studies of tier 3 that were asked for, and are copied back to tier 1 or 2 by the worker. Whoever works on a study, up
-- or down, holds its advisory lock (pacs/index/movement.py), which it loses when it dies. After a restore every study
-- that is in the repository only is recalled (restore_key), those that somebody asks for first.
CREATE TABLE recall (
    tenant_id    smallint NOT NULL DEFAULT 1 REFERENCES tenant,
    recall_key   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_key    bigint NOT NULL REFERENCES study ON DELETE CASCADE,
    why          text NOT NULL CHECK (why IN ('asked', 'person', 'prior', 'restore')),
    restore_key  bigint REFERENCES restore,
    state        text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done', 'failed')),
    objects      integer NOT NULL DEFAULT 0,  -- brought back
    size_bytes   bigint NOT NULL DEFAULT 0,
    attempts     integer NOT NULL DEFAULT 0,
    last_error   text NOT NULL DEFAULT '',
    requested_at timestamptz NOT NULL DEFAULT now(),
    next_try_at  timestamptz NOT NULL DEFAULT now(),
    finished_at  timestamptz
);
CREATE UNIQUE INDEX recall_open ON recall (study_key) WHERE state = 'open';  -- however many ask at once
CREATE INDEX recall_by_study ON recall (study_key, finished_at);
CREATE INDEX recall_waiting ON recall (recall_key) WHERE state = 'open' AND why <> 'restore';
CREATE INDEX recall_behind ON recall (recall_key) WHERE state = 'open' AND why = 'restore';
CREATE INDEX recall_of_restore ON recall (restore_key, finished_at) WHERE restore_key IS NOT NULL;

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

-- The mark of the lineage that the database carries (pacs/model/lineage.py), as each volume does. One row, or none yet.
CREATE TABLE lineage (
    tenant_id smallint PRIMARY KEY DEFAULT 1 REFERENCES tenant,
    mark      jsonb NOT NULL
);

-- What arrived on each day (UTC), for the forecast of when the disks are full. The worker counts it behind the objects'
-- back, so that storing one only inserts; it has counted all up to the object through_object_key.
CREATE TABLE arrival (
    tenant_id  smallint NOT NULL REFERENCES tenant,
    day        date NOT NULL,
    objects    bigint NOT NULL,
    size_bytes bigint NOT NULL,
    PRIMARY KEY (tenant_id, day)
);
CREATE TABLE arrival_counted (
    through_object_key bigint NOT NULL
);
INSERT INTO arrival_counted VALUES (0);
-- Counted with them: who sent in which three hours, for a device that has gone silent (pacs/model/rhythm.py), and how
-- large the objects were. A class is the first bound of index/growth.py that an object is not larger than.
CREATE TABLE sending (
    tenant_id  smallint NOT NULL REFERENCES tenant,
    calling_ae text NOT NULL,
    slot       integer NOT NULL,  -- since 1970, in three hours
    objects    bigint NOT NULL,
    PRIMARY KEY (tenant_id, calling_ae, slot)
);
CREATE TABLE arrival_size (
    tenant_id  smallint NOT NULL REFERENCES tenant,
    size_class smallint NOT NULL,
    objects    bigint NOT NULL,
    size_bytes numeric NOT NULL,
    PRIMARY KEY (tenant_id, size_class)
);

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
    ELSE
        PERFORM pacs_name_patient(tenant, patient_k, fields);
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
                           study_description, referring_physician_name, referring_physician_name_key, timezone_offset,
                           procedure_codes, is_patients)
        VALUES (tenant, patient_k, fields->>'study_instance_uid', fields->>'study_date', fields->>'study_time',
                fields->>'accession_number', fields->>'study_id', fields->>'study_description',
                fields->>'referring_physician_name', fields->>'referring_physician_name_key',
                fields->>'timezone_offset', fields->'procedure_codes', (fields->>'is_patients')::boolean)
        ON CONFLICT DO NOTHING RETURNING study_key INTO study_k;
        IF study_k IS NULL THEN  -- another association was faster, perhaps with another patient
            SELECT s.study_key, s.patient_key INTO STRICT study_k, patient_k FROM study s
             WHERE s.tenant_id = tenant AND s.study_instance_uid = fields->>'study_instance_uid';
        END IF;
    END IF;

    SELECT p.patient_id, p.issuer_of_patient_id, p.lone_study_uid INTO STRICT known
      FROM patient p WHERE p.patient_key = patient_k;
    IF (known.patient_id, known.issuer_of_patient_id, known.lone_study_uid)
       <> (fields->>'patient_id', fields->>'issuer_of_patient_id', fields->>'lone_study_uid') THEN
        PERFORM pacs_raise(tenant, 'study', study_k, pacs_identity(fields), fields);
    ELSIF NOT pacs_same_name(pacs_names_of(patient_k), pacs_names(fields)) THEN
        PERFORM pacs_raise(tenant, 'patient', patient_k, pacs_digest(pacs_names(fields)::text), fields);
    END IF;

    INSERT INTO series (tenant_id, study_key, series_instance_uid, modality, series_number, series_date, series_time,
                        series_description, body_part_examined, protocol_name, institution_name, station_name,
                        manufacturer, performed_date, performed_time, request_attributes)
    VALUES (tenant, study_k, fields->>'series_instance_uid', fields->>'modality', (fields->>'series_number')::integer,
            fields->>'series_date', fields->>'series_time', fields->>'series_description',
            fields->>'body_part_examined', fields->>'protocol_name', fields->>'institution_name',
            fields->>'station_name', fields->>'manufacturer', fields->>'performed_date', fields->>'performed_time',
            fields->'request_attributes')
    ON CONFLICT DO NOTHING RETURNING series_key INTO series_k;
    IF series_k IS NULL THEN
        SELECT s.series_key INTO STRICT series_k FROM series s
         WHERE s.study_key = study_k AND s.series_instance_uid = fields->>'series_instance_uid';
        RETURN series_k;
    END IF;
    INSERT INTO study_modality (tenant_id, modality, study_date, study_key)
    SELECT tenant, fields->>'modality', s.study_date, study_k FROM study s
     WHERE s.study_key = study_k AND fields->>'modality' <> '' ON CONFLICT DO NOTHING;
    INSERT INTO stored_syntax (tenant_id, sop_class_uid, transfer_syntax_uid)
    VALUES (tenant, fields->>'sop_class_uid', fields->>'transfer_syntax_uid') ON CONFLICT DO NOTHING;
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

-- The component groups of a name as they are compared: folded by pacs/model/names.py, and without what sets components
-- apart, as devices write `Doe^John`, `Doe John` and `Doe, John` for one.
CREATE FUNCTION pacs_names(fields jsonb) RETURNS text[]
LANGUAGE sql AS $$
    SELECT coalesce(array_agg(k ORDER BY k), '{}') FROM (
        SELECT DISTINCT btrim(regexp_replace(g, '[\s^,.]+', ' ', 'g')) COLLATE "C"
          FROM jsonb_array_elements_text(fields->'patient_name_keys') g) names (k)
$$;

CREATE FUNCTION pacs_names_of(known_patient_key bigint) RETURNS text[]
LANGUAGE sql AS $$
    SELECT pacs_names(jsonb_build_object('patient_name_keys', coalesce(jsonb_agg(n.name_key), '[]')))
      FROM patient_name n WHERE n.patient_key = known_patient_key
$$;

-- Whether a name can be a known patient's, spelled in another way: one of them may have component groups more than the
-- other, and none that differs. A name that says nothing contradicts none.
CREATE FUNCTION pacs_same_name(known text[], came text[]) RETURNS boolean IMMUTABLE
LANGUAGE sql AS $$ SELECT came <@ known OR (known <@ came AND known <> '{}') $$;

-- The sounds of a folded word: both of Double Metaphone's codes, or the word itself.
CREATE FUNCTION pacs_sounds(word text) RETURNS SETOF text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN word ~ '^[ -~]+$' AND c <> '' THEN upper(c) ELSE word END
      FROM (VALUES (dmetaphone(word)), (dmetaphone_alt(word))) codes (c);
$$;

-- Makes a new patient known by name: `patient_name_keys` are the folded component groups, `patient_name_words` the words
-- whose sounds are kept. A word that has no sound of the Latin alphabet stands for itself.
CREATE FUNCTION pacs_name_patient(tenant smallint, new_patient_key bigint, fields jsonb) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO patient_name (tenant_id, name_key, patient_key)
    SELECT tenant, k, new_patient_key FROM jsonb_array_elements_text(fields->'patient_name_keys') k
    ON CONFLICT DO NOTHING;
    INSERT INTO patient_sound (tenant_id, sound, patient_key)
    SELECT DISTINCT tenant, s, new_patient_key FROM jsonb_array_elements_text(fields->'patient_name_words') w,
           LATERAL pacs_sounds(w) s
    ON CONFLICT DO NOTHING;
$$;
