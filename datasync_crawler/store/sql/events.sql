-- Writing events and rejections. {schema} is replaced by the quoted name of DB_SCHEMA,
-- {columns} by core.copyrows' columns.

-- name: copy_events
-- The fast path: straight into the table.
COPY {schema}.events ({columns}) FROM STDIN;

-- name: make_incoming
-- Where rows wait to be merged. It lives as long as the session (behind a pooler: as the
-- server's), empty outside a transaction.
CREATE TEMP TABLE IF NOT EXISTS incoming (
    page integer, id text, session_id text, user_id text, type text, name text,
    properties jsonb, "timestamp" timestamptz, session jsonb, extra jsonb
) ON COMMIT DELETE ROWS;

-- name: copy_incoming
COPY pg_temp.incoming (page, {columns}) FROM STDIN;

-- name: merge_keep
-- The first of each id wins, in the order received (ctid), against the table and among
-- themselves. Sorted by id, so that two writers take their locks in the same order.
WITH firsts AS (
    SELECT DISTINCT ON (id) page, {columns} FROM pg_temp.incoming ORDER BY id, ctid
), stored AS (
    INSERT INTO {schema}.events ({columns})
    SELECT {columns} FROM firsts ORDER BY id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
)
SELECT f.page, count(*) FROM stored JOIN firsts AS f USING (id) GROUP BY f.page;

-- name: merge_update
-- The last of each id wins (ON_DUPLICATE=update). xmax is 0 for a row that is new.
WITH lasts AS (
    SELECT DISTINCT ON (id) page, {columns} FROM pg_temp.incoming ORDER BY id, ctid DESC
), stored AS (
    INSERT INTO {schema}.events AS e ({columns})
    SELECT {columns} FROM lasts ORDER BY id
    ON CONFLICT (id) DO UPDATE
    SET session_id = excluded.session_id, user_id = excluded.user_id, type = excluded.type,
        name = excluded.name, properties = excluded.properties,
        "timestamp" = excluded."timestamp", session = excluded.session, extra = excluded.extra,
        ingested_at = now()
    WHERE (e.session_id, e.user_id, e.type, e.name, e.properties, e."timestamp", e.session, e.extra)
        IS DISTINCT FROM (excluded.session_id, excluded.user_id, excluded.type, excluded.name,
                          excluded.properties, excluded."timestamp", excluded.session,
                          excluded.extra)
    RETURNING id, xmax = 0 AS is_new
)
SELECT l.page, count(*) FROM stored JOIN lasts AS l USING (id) WHERE is_new GROUP BY l.page;

-- name: count_changed
-- Rows whose id is stored with other content: after merge_keep, before merge_update.
SELECT i.page, count(*)
FROM pg_temp.incoming AS i JOIN {schema}.events AS e USING (id)
WHERE (i.session_id, i.user_id, i.type, i.name, i.properties, i."timestamp", i.session, i.extra)
    IS DISTINCT FROM
      (e.session_id, e.user_id, e.type, e.name, e.properties, e."timestamp", e.session, e.extra)
GROUP BY i.page;

-- name: clear_rejections
-- A range fetched again says anew what is rejected in it.
DELETE FROM {schema}.rejected_events
WHERE "position" >= %(first)s AND "position" < %(stop)s;

-- name: insert_rejections
-- %%s is execute_values' place.
INSERT INTO {schema}.rejected_events ("position", page_offset, reason, raw)
VALUES %s
ON CONFLICT ("position") DO UPDATE
SET page_offset = excluded.page_offset, reason = excluded.reason, raw = excluded.raw,
    rejected_at = now();
