-- Freshness of the stored events. {schema} is replaced by the quoted name of DB_SCHEMA. Times are
-- epoch seconds by the database's clock.

-- name: freshness
-- The present time, the last proof, and of the newest run its id, its end, its finish reason and the
-- seconds since its last heartbeat.
SELECT extract(epoch FROM now())::float8,
       (SELECT extract(epoch FROM max(proved_at))::float8 FROM {schema}.proofs),
       r.id, extract(epoch FROM r.finished_at)::float8, r.finish_reason,
       extract(epoch FROM now())::float8 - extract(epoch FROM r.heartbeat_at)::float8
FROM (VALUES (1)) AS one
LEFT JOIN (SELECT * FROM {schema}.crawl_runs ORDER BY id DESC LIMIT 1) AS r ON true;

-- name: last_heartbeat
-- Seconds since the last heartbeat of this host's newest run, and whether that run has ended.
SELECT extract(epoch FROM now())::float8 - extract(epoch FROM heartbeat_at)::float8,
    finished_at IS NOT NULL
FROM {schema}.crawl_runs WHERE host = %(host)s ORDER BY id DESC LIMIT 1;

-- name: newest_event
-- Reads the whole table unless there is an index on "timestamp".
SELECT extract(epoch FROM max("timestamp"))::float8 FROM {schema}.events
WHERE "timestamp" < 'infinity';
