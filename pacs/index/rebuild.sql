-- What a rebuild of the index keeps beside it while it is at work (pacs/index/rebuild.py); gone when it is done.
-- Logged, but for what a crash of PostgreSQL may take: the files that were read and are not loaded yet.

CREATE SCHEMA rebuild;

CREATE TABLE rebuild.state (name text PRIMARY KEY, value jsonb NOT NULL);
-- The days of arrival that are loaded.
CREATE TABLE rebuild.day (day date PRIMARY KEY, files bigint NOT NULL);
-- What was read, by pieces of a day on a volume. Goes with the rows of rebuild.file_<day>.
CREATE UNLOGGED TABLE rebuild.unit (unit text PRIMARY KEY, files bigint NOT NULL, size_bytes bigint NOT NULL);

-- What the receipts say (pacs/storage/receipts.py): of objects, and of what came again.
CREATE TABLE rebuild.receipt (
    sha256             bytea NOT NULL,
    sop_instance_uid   text NOT NULL,
    study_instance_uid text NOT NULL,
    arrived_at         timestamptz NOT NULL,
    association_key    bigint,
    is_found           boolean NOT NULL DEFAULT false
);
CREATE TABLE rebuild.again (
    sha256           bytea NOT NULL,
    sop_instance_uid text NOT NULL,
    arrived_at       timestamptz NOT NULL,
    kind             text NOT NULL,
    association_key  bigint
);

-- Files that were left out, and why.
CREATE TABLE rebuild.left_out (volume_id uuid NOT NULL, path text NOT NULL, reason text NOT NULL);

-- A file that was read; each day has a table like this one. Here are those that are stored with a later day: named just
-- before midnight, stored just after. `above` tells what it says of its series, study and patient: files that say the same go into
-- the same series. `fields` is what pacs_store takes; left out of most of those that say what one before them said.
CREATE SEQUENCE rebuild.file_keys;
CREATE TABLE rebuild.file (
    file_key            bigint NOT NULL DEFAULT nextval('rebuild.file_keys'),
    tenant_id           smallint NOT NULL,
    volume_id           uuid NOT NULL,
    path                text NOT NULL,
    size_bytes          bigint NOT NULL,
    modified_at         timestamptz NOT NULL,
    sha256              bytea NOT NULL,
    arrived_at          timestamptz NOT NULL,
    is_receipted        boolean NOT NULL,
    association_key     bigint,
    sop_instance_uid    text NOT NULL,
    sop_class_uid       text NOT NULL,
    transfer_syntax_uid text NOT NULL,
    instance_number     integer,
    content_date        text NOT NULL,
    content_time        text NOT NULL,
    number_of_frames    integer,
    above               uuid NOT NULL,
    fields              jsonb
);

-- Makes `segment` of the files in `loading` that arrived before `until`: an object once, numbered in the order of their
-- arrival. Those that need a look are is_slow: the first that says something new of what stands above it, and those
-- whose UID is another's too. All others only add an object to a series that is known, in any order.
CREATE FUNCTION rebuild.make_segment(until timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    CREATE TEMPORARY TABLE segment ON COMMIT DROP AS
    SELECT (SELECT coalesce(max(object_key), 0) FROM object)
           + row_number() OVER (ORDER BY d.arrived_at, d.sop_instance_uid, d.sha256) AS object_key,
           d.file_key, d.arrived_at, d.above,
           (row_number() OVER (PARTITION BY d.above ORDER BY d.arrived_at, d.sop_instance_uid, d.sha256) = 1
               AND NOT EXISTS (SELECT FROM placed p WHERE p.above = d.above))
           OR count(*) OVER (PARTITION BY d.tenant_id, d.sop_instance_uid) > 1
           OR (SELECT o.object_key FROM object o WHERE o.tenant_id = d.tenant_id
                  AND o.sop_instance_uid = d.sop_instance_uid LIMIT 1) IS NOT NULL AS is_slow
      FROM (SELECT DISTINCT ON (f.tenant_id, f.sop_instance_uid, f.sha256)
                   f.tenant_id, f.sop_instance_uid, f.sha256, f.above, f.file_key,
                   min(f.arrived_at) OVER (PARTITION BY f.tenant_id, f.sop_instance_uid, f.sha256) AS arrived_at
              FROM loading f JOIN volume v USING (volume_id) WHERE f.arrived_at < until
             ORDER BY f.tenant_id, f.sop_instance_uid, f.sha256, v.tier, f.modified_at, f.path) d
     WHERE (SELECT o.object_key FROM object o WHERE o.tenant_id = d.tenant_id
               AND o.sop_instance_uid = d.sop_instance_uid AND o.sha256 = d.sha256 LIMIT 1) IS NULL;
END $$;

-- Stores the rows of `segment` that need a look (is_slow), in their order, as they were stored when they came.
CREATE FUNCTION rebuild.store_slow() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    each        record;
    done        record;
    keys        text := pg_get_serial_sequence('object', 'object_key');
    conflict_k  bigint := coalesce((SELECT max(conflict_key) FROM conflict), 0);
    duplicate_k bigint := coalesce((SELECT max(duplicate_key) FROM duplicate), 0);
    newest      bigint;
BEGIN
    FOR each IN
        SELECT s.object_key, s.arrived_at AS came_at, f.* FROM segment s JOIN loading f USING (file_key)
         WHERE s.is_slow ORDER BY s.object_key
    LOOP
        PERFORM setval(keys, each.object_key, false);  -- objects are numbered in the order of their arrival
        SELECT * INTO STRICT done FROM pacs_store(each.fields, each.sha256, each.size_bytes, each.volume_id, each.path,
                                                  each.association_key, false);
        IF done.outcome = 'other' THEN
            PERFORM setval(keys, each.object_key, false);
            SELECT * INTO STRICT done FROM pacs_store(each.fields, each.sha256, each.size_bytes, each.volume_id,
                                                      each.path, each.association_key, true);
        END IF;
        UPDATE object SET arrived_at = each.came_at WHERE object_key = done.found_object_key;
        UPDATE copy SET created_at = each.modified_at
         WHERE object_key = done.found_object_key AND volume_id = each.volume_id;
        SELECT max(conflict_key) INTO newest FROM conflict WHERE conflict_key > conflict_k;
        IF newest IS NOT NULL THEN
            UPDATE conflict SET raised_at = each.came_at WHERE conflict_key > conflict_k;
            conflict_k := newest;
        END IF;
        SELECT max(duplicate_key) INTO newest FROM duplicate WHERE duplicate_key > duplicate_k;
        IF newest IS NOT NULL THEN
            UPDATE duplicate SET arrived_at = each.came_at WHERE duplicate_key > duplicate_k;
            duplicate_k := newest;
        END IF;
        INSERT INTO placed (above, series_key)
        SELECT each.above, series_key FROM object WHERE object_key = done.found_object_key ON CONFLICT DO NOTHING;
    END LOOP;
END $$;

-- Stores all others, and every file as a copy.
CREATE FUNCTION rebuild.store_rest(until timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO object (tenant_id, object_key, series_key, sop_instance_uid, sop_class_uid, transfer_syntax_uid,
                        instance_number, content_date, content_time, number_of_frames, sha256, size_bytes,
                        association_key, arrived_at, is_current) OVERRIDING SYSTEM VALUE
    SELECT f.tenant_id, s.object_key, p.series_key, f.sop_instance_uid, f.sop_class_uid, f.transfer_syntax_uid,
           f.instance_number, f.content_date, f.content_time, f.number_of_frames, f.sha256, f.size_bytes,
           f.association_key, s.arrived_at, true
      FROM segment s JOIN loading f USING (file_key) JOIN placed p ON p.above = s.above
     WHERE NOT s.is_slow ORDER BY s.object_key;
    INSERT INTO copy (tenant_id, object_key, volume_id, path, created_at)
    SELECT f.tenant_id, o.object_key, f.volume_id, f.path, f.modified_at
      FROM loading f CROSS JOIN LATERAL (
           SELECT o.object_key FROM object o WHERE o.tenant_id = f.tenant_id
              AND o.sop_instance_uid = f.sop_instance_uid AND o.sha256 = f.sha256 LIMIT 1) o
     WHERE f.arrived_at < until ORDER BY o.object_key, f.modified_at, f.path
        ON CONFLICT DO NOTHING;
END $$;
