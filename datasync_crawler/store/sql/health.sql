-- The health check. {schema} is replaced by the quoted name of DB_SCHEMA.

-- name: last_heartbeat
-- Seconds since the last heartbeat of this host's newest run, and whether that run has ended.
SELECT extract(epoch FROM now())::float8 - extract(epoch FROM heartbeat_at)::float8,
    finished_at IS NOT NULL
FROM {schema}.crawl_runs WHERE host = %(host)s ORDER BY id DESC LIMIT 1;
