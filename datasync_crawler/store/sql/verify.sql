-- What the proof and the status read, beside ledger.sql. Nothing here writes. {schema} is replaced
-- by the quoted name of DB_SCHEMA.

-- name: known_source
-- Whose events these are, and the last known total: what the pages said, or, of an API that says
-- none, what the last complete run found.
SELECT s.api_base_url,
       coalesce(s.total, (SELECT (r.stats->>'crawl/total')::bigint FROM {schema}.crawl_runs AS r
                          WHERE (r.stats->>'crawl/complete')::boolean ORDER BY r.id DESC LIMIT 1))
FROM {schema}.source AS s;

-- name: count_holes
-- How many holes there are below %(total)s: those that end at a committed range, and the last.
SELECT count(*) FILTER (WHERE first_offset > reached)
       + CASE WHEN coalesce(max(first_offset + received), 0) < %(total)s THEN 1 ELSE 0 END
FROM (
    SELECT first_offset, received,
           coalesce(max(first_offset + received) OVER (
               ORDER BY first_offset
               ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS reached
    FROM {schema}.checkpoint
    WHERE first_offset < %(total)s
) AS committed;

-- name: unbalanced
SELECT count(*) FROM {schema}.checkpoint WHERE received <> inserted + duplicates + rejected;

-- name: stored
-- Rows and distinct ids: the same, unless somebody has dropped the primary key.
SELECT count(*), count(DISTINCT id) FROM {schema}.events;

-- name: rejections_astray
-- Ranges with rejections, that no later range has read again, whose rejections aren't all there.
SELECT count(*)
FROM {schema}.checkpoint AS c
WHERE c.rejected > 0
  AND c.rejected > (SELECT count(*) FROM {schema}.rejected_events AS r
                    WHERE r."position" >= c.first_offset
                      AND r."position" < c.first_offset + c.received)
  AND NOT EXISTS (SELECT 1 FROM {schema}.checkpoint AS later
                  WHERE (later.committed_at, later.pass) > (c.committed_at, c.pass)
                    AND later.first_offset < c.first_offset + c.received
                    AND later.first_offset
                        >= c.first_offset - (SELECT max(received) FROM {schema}.checkpoint)
                    AND later.first_offset + later.received > c.first_offset);

-- name: is_running
SELECT EXISTS (SELECT 1 FROM {schema}.crawl_runs
               WHERE finished_at IS NULL
                 AND heartbeat_at > now() - %(crashed_after_s)s * interval '1 second');

-- name: rejection_reasons
SELECT reason, count(*) FROM {schema}.rejected_events GROUP BY reason ORDER BY 2 DESC, 1
LIMIT %(most)s;

-- name: last_runs
SELECT id, to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'),
       extract(epoch FROM coalesce(finished_at, heartbeat_at) - started_at)::float8 AS lasted_s,
       extract(epoch FROM now() - heartbeat_at)::float8 AS silent_s,
       finish_reason,
       coalesce((stats->>'crawl/complete')::boolean, false),
       coalesce((stats->>'events/inserted')::bigint, 0),
       coalesce((stats->>'events/received')::bigint, 0)
FROM {schema}.crawl_runs
ORDER BY id DESC
LIMIT %(most)s;
