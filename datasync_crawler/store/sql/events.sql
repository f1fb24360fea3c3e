-- Writing events and rejections. {schema} is replaced by the quoted name of DB_SCHEMA,
-- {columns} by the columns of events.copyrows.

-- name: copy_events
-- The fast path, straight into the table.
COPY {schema}.events ({columns}) FROM STDIN;

-- name: make_incoming
-- Rows to be merged. The table lasts as long as the transaction.
CREATE TEMP TABLE pg_temp.datasync_incoming (
    page integer, id text, session_id text, user_id text, type text, name text,
    properties jsonb, "timestamp" timestamptz, session jsonb, extra jsonb
) ON COMMIT DROP;

-- name: index_incoming
-- For the search for refused rows: an oversized id fails COPY at this index, which names its line.
CREATE INDEX ON pg_temp.datasync_incoming (id);

-- name: copy_incoming
COPY pg_temp.datasync_incoming (page, {columns}) FROM STDIN;

-- name: compare
-- Per page: rows whose id is stored, and those of them whose content differs. LATERAL with OFFSET 0
-- forces one index lookup per row. Without it PostgreSQL, which doesn't know the temporary table's
-- size, hashes all of `events` (with 150,000 rows stored 110 ms a page instead of 25).
SELECT i.page, count(*), count(*) FILTER (WHERE known.differs)
FROM pg_temp.datasync_incoming AS i
CROSS JOIN LATERAL (
    SELECT (i.session_id, i.user_id, i.type, i.name, i.properties, i."timestamp", i.session,
            i.extra)
        IS DISTINCT FROM
           (e.session_id, e.user_id, e.type, e.name, e.properties, e."timestamp", e.session,
            e.extra) AS differs
    FROM {schema}.events AS e WHERE e.id = i.id
    OFFSET 0
) AS known
GROUP BY i.page;

-- name: compare_overwritten
-- Per page: rows of new ids that a later row of the same id has overwritten with other content.
SELECT i.page, count(*)
FROM pg_temp.datasync_incoming AS i JOIN {schema}.events AS e ON e.id = i.id
WHERE i.id = ANY (%(new)s)
  AND (i.session_id, i.user_id, i.type, i.name, i.properties, i."timestamp", i.session, i.extra)
      IS DISTINCT FROM
      (e.session_id, e.user_id, e.type, e.name, e.properties, e."timestamp", e.session, e.extra)
GROUP BY i.page;

-- name: merge_keep
-- A stored row wins, then the first received of each id (ctid). The sort by id makes two writers
-- take their locks in the same order; it is by bytes because a collation is slow.
INSERT INTO {schema}.events ({columns})
SELECT {columns} FROM pg_temp.datasync_incoming ORDER BY id COLLATE "C", ctid
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: merge_update
-- The last row of each id wins (ON_DUPLICATE=update).
INSERT INTO {schema}.events AS e ({columns})
SELECT {columns} FROM (
    SELECT DISTINCT ON (id COLLATE "C") {columns}
    FROM pg_temp.datasync_incoming ORDER BY id COLLATE "C", ctid DESC
) AS lasts
ON CONFLICT (id) DO UPDATE
SET session_id = excluded.session_id, user_id = excluded.user_id, type = excluded.type,
    name = excluded.name, properties = excluded.properties,
    "timestamp" = excluded."timestamp", session = excluded.session, extra = excluded.extra,
    ingested_at = now()
WHERE (e.session_id, e.user_id, e.type, e.name, e.properties, e."timestamp", e.session, e.extra)
    IS DISTINCT FROM (excluded.session_id, excluded.user_id, excluded.type, excluded.name,
                      excluded.properties, excluded."timestamp", excluded.session, excluded.extra)
RETURNING id;

-- name: inserted_ids
-- Which of %(ids)s, all of them written by this transaction, are new: an updated row has an xmax.
-- RETURNING can't say it, because in a partitioned table it has no system columns.
SELECT id FROM {schema}.events WHERE id = ANY (%(ids)s) AND xmax = 0;

-- name: clear_rejections
-- A range fetched again replaces its rejections. execute_values fills %%s.
DELETE FROM {schema}.rejected_events AS r
USING (VALUES %s) AS fetched (first, stop)
WHERE r."position" >= fetched.first AND r."position" < fetched.stop;

-- name: known_rejections
-- Which of %(raws)s are stored as rejections.
SELECT DISTINCT raw FROM {schema}.rejected_events WHERE raw = ANY (%(raws)s::bytea[]);

-- name: taken_positions
-- Which of %(positions)s hold a rejection, and the first position after all rejections.
SELECT coalesce(array_agg("position") FILTER (WHERE "position" = ANY (%(positions)s::bigint[])),
                '{}'),
       coalesce(max("position"), 0) + 1
FROM {schema}.rejected_events;

-- name: insert_rejections
-- execute_values fills %%s.
INSERT INTO {schema}.rejected_events ("position", page_offset, reason, raw)
VALUES %s
ON CONFLICT ("position") DO UPDATE
SET page_offset = excluded.page_offset, reason = excluded.reason, raw = excluded.raw,
    rejected_at = now();
