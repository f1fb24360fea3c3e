-- What the dashboard reads. Nothing here writes. {schema} is replaced by the quoted name of
-- DB_SCHEMA. Times leave as epoch seconds or as seconds by the database's clock.

-- name: run
-- One run with its stats as text. When none is named, the newest one that is alive, else the one
-- that ended last: of several processes one may have died, and the others have gone on. A crawl
-- writes some 10 kB.
SELECT id, host, pid,
       extract(epoch FROM started_at)::float8 AS started_at,
       extract(epoch FROM finished_at)::float8 AS finished_at,
       extract(epoch FROM coalesce(finished_at, heartbeat_at))::float8
           - extract(epoch FROM started_at)::float8 AS lasted_s,
       extract(epoch FROM now())::float8 - extract(epoch FROM heartbeat_at)::float8 AS silent_s,
       finish_reason, CASE WHEN octet_length(stats::text) < 1000000 THEN stats::text END AS stats
FROM {schema}.crawl_runs
WHERE id = coalesce(%(run_id)s, (
    SELECT id FROM {schema}.crawl_runs, LATERAL (
        SELECT finished_at IS NULL
               AND heartbeat_at > now() - %(silent_after_s)s * interval '1 second' AS is_alive
    ) AS state
    ORDER BY is_alive DESC, CASE WHEN is_alive THEN id END DESC,
             coalesce(finished_at, heartbeat_at) DESC, id DESC
    LIMIT 1));

-- name: series
-- A run's samples in order, the last of each of about %(points)s equal spans, with their time
-- since the run's start.
WITH own AS (
    SELECT extract(epoch FROM s.sampled_at)::float8
           - extract(epoch FROM r.started_at)::float8 AS at_s, s.figures
    FROM {schema}.crawl_samples AS s JOIN {schema}.crawl_runs AS r ON r.id = s.run_id
    WHERE s.run_id = %(run_id)s
), span AS (
    SELECT greatest(0.5, max(at_s) / %(points)s) AS span_s FROM own
)
SELECT DISTINCT ON (floor(at_s / span_s)) at_s, left(figures::text, 10000) AS figures
FROM own CROSS JOIN span
ORDER BY floor(at_s / span_s), at_s DESC;

-- name: source
SELECT api_base_url, total FROM {schema}.source;

-- name: ledger
-- The newest pass in one reading, as islands of what is committed: a piece begins one when it lies
-- behind all that was reached before it. Islands are few, however many ranges there are; they are
-- cut into cells of %(width)s offsets.
{chain}, committed AS (
    SELECT first, coalesce(reached, -1) AS reached FROM reaching WHERE first < %(total)s
), islands AS MATERIALIZED (
    SELECT first, greatest(reached, 0) AS reached,
           lead(reached, 1, (
               SELECT least(max(stop), %(total)s) FROM pieces WHERE first < %(total)s
           )) OVER (ORDER BY first) AS stop
    FROM committed
    WHERE first > reached
), cells AS (
    SELECT cell, sum(least(stop, (cell + 1) * %(width)s) - greatest(first, cell * %(width)s)) AS n
    FROM islands
    CROSS JOIN LATERAL generate_series(first / %(width)s, (stop - 1) / %(width)s) AS cell
    GROUP BY cell
), gaps AS (
    SELECT reached AS first, first AS stop FROM islands WHERE first > reached
)
SELECT (SELECT coalesce(json_agg(json_build_array(cell, n) ORDER BY cell), '[]') FROM cells),
       (SELECT coalesce(sum(stop - first), 0)::bigint FROM islands) AS covered,
       (SELECT coalesce(max(stop), 0) FROM islands) AS reach,
       (SELECT count(*) FROM gaps) AS gaps,
       (SELECT coalesce(json_agg(json_build_array(first, stop) ORDER BY first), '[]')
        FROM (SELECT first, stop FROM gaps ORDER BY first LIMIT 20) AS few);

-- name: ledger_sums
SELECT coalesce(sum(inserted), 0)::bigint AS stored,
       coalesce(sum(duplicates), 0)::bigint AS duplicates,
       coalesce(sum(rejected), 0)::bigint AS rejected,
       count(*) AS ranges,
       greatest(coalesce(max(pass), 0), 0) AS pass
FROM {schema}.checkpoint;

-- name: reach
{chain}
SELECT coalesce(max(stop), 0) FROM chain;

-- name: cell_runs
-- The newest run that has committed into each cell.
SELECT first_offset / %(width)s AS cell, max(run_id)
FROM {schema}.checkpoint WHERE pass = %(pass)s AND first_offset < %(total)s
GROUP BY 1 ORDER BY 1;

-- name: doubts
-- Offsets of the first seams that nothing joins yet.
{chain}
SELECT first FROM joints AS j
WHERE NOT exact
  AND NOT EXISTS (SELECT 1 FROM {schema}.seams AS s
                  WHERE s.pass = %(pass)s AND s.first_offset = j.first AND s.kind <> 'base')
ORDER BY first
LIMIT 20;

-- name: sizes
-- Bytes of the table and of its indexes, with those of its partitions; rows as ANALYZE last knew.
SELECT coalesce(sum(pg_table_size(c.oid)), 0)::bigint AS heap,
       coalesce(sum(pg_indexes_size(c.oid)), 0)::bigint AS indexes,
       coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint AS rows
FROM pg_namespace AS n JOIN pg_class AS e ON e.relnamespace = n.oid AND e.relname = 'events'
LEFT JOIN LATERAL pg_partition_tree(e.oid) AS t ON true
JOIN pg_class AS c ON c.oid = coalesce(t.relid, e.oid)
WHERE n.nspname = %(schema)s AND coalesce(t.isleaf, true);

-- name: rows_by
-- Rows by day (UTC) and by type, both in one scan, of %(percent)s of the table's blocks.
SELECT grouping(type) = 1 AS is_day,
       coalesce(("timestamp" AT TIME ZONE 'UTC')::date::text, type, 'none') AS name, count(*)
FROM {schema}.events TABLESAMPLE SYSTEM (%(percent)s)
GROUP BY GROUPING SETS ((("timestamp" AT TIME ZONE 'UTC')::date), (type))
ORDER BY 1, 2;

-- name: newest_events
SELECT extract(epoch FROM "timestamp")::float8, left(id, 60), left(type, 40), left(name, 60),
       left(user_id, 60)
FROM {schema}.events TABLESAMPLE SYSTEM (%(percent)s)
WHERE "timestamp" IS NOT NULL
ORDER BY "timestamp" DESC LIMIT 5;

-- name: rejected_cells
SELECT "position" / %(width)s AS cell, count(*)
FROM {schema}.rejected_events WHERE "position" < %(total)s
GROUP BY 1 ORDER BY 1;

-- name: rejections
-- The commonest reasons with their first three events; raw cut by the server.
WITH reasons AS (
    SELECT reason, count(*) AS events, (array_agg("position" ORDER BY "position"))[1:3] AS firsts
    FROM {schema}.rejected_events
    GROUP BY reason
    ORDER BY count(*) DESC, reason
    LIMIT %(most)s
)
SELECT r.reason, r.events, e."position", substring(e.raw FROM 1 FOR 600) AS raw
FROM reasons AS r JOIN {schema}.rejected_events AS e ON e."position" = ANY (r.firsts)
ORDER BY r.events DESC, r.reason, e."position";
