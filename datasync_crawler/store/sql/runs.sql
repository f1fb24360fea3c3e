-- Runs, their heartbeat and their samples. {schema} is replaced by the quoted name of DB_SCHEMA.

-- name: name_source
-- The first run records the API of this schema. One without a row of the ledger, such as a
-- mistyped address, is replaced.
INSERT INTO {schema}.source (api_base_url, pagination)
VALUES (%(api_base_url)s, %(pagination)s)
ON CONFLICT (singleton) DO UPDATE
SET api_base_url = excluded.api_base_url, pagination = excluded.pagination, total = NULL,
    page_limit = NULL, overlap = 1
WHERE source.api_base_url <> excluded.api_base_url
  AND NOT EXISTS (SELECT 1 FROM {schema}.checkpoint);

-- name: read_source
SELECT api_base_url FROM {schema}.source;

-- name: start_run
INSERT INTO {schema}.crawl_runs (host, pid) VALUES (%(host)s, %(pid)s) RETURNING id;

-- name: beat
-- One statement, one commit: the run's row and a sample of its figures. Returns how many other
-- processes share the crawl now, and the events that others have received since this run began.
WITH beaten AS (
    UPDATE {schema}.crawl_runs SET heartbeat_at = now(), stats = %(stats)s WHERE id = %(run_id)s
    RETURNING started_at
), sampled AS (
    INSERT INTO {schema}.crawl_samples (run_id, figures) VALUES (%(run_id)s, %(figures)s)
    ON CONFLICT DO NOTHING
)
SELECT count(*) FILTER (WHERE r.finished_at IS NULL
                        AND r.heartbeat_at > now() - %(silent_after_s)s * interval '1 second'),
       coalesce(sum(CASE WHEN r.stats->>'events/received' ~ '^[0-9]{1,15}$'
                         THEN (r.stats->>'events/received')::bigint END), 0)::bigint
FROM {schema}.crawl_runs AS r, beaten AS b
WHERE r.id <> %(run_id)s AND r.heartbeat_at > b.started_at;

-- name: thin_samples
-- Keeps the last sample of each ten seconds after ten minutes, of each minute after three hours.
WITH numbered AS (
    SELECT run_id, sampled_at, row_number() OVER (
        PARTITION BY run_id, sampled_at < now() - interval '3 hours',
            floor(extract(epoch FROM sampled_at)
                  / CASE WHEN sampled_at < now() - interval '3 hours' THEN 60 ELSE 10 END)
        ORDER BY sampled_at DESC) AS place
    FROM {schema}.crawl_samples
    WHERE sampled_at < now() - interval '10 minutes'
)
DELETE FROM {schema}.crawl_samples AS s
USING numbered AS n
WHERE n.place > 1 AND s.run_id = n.run_id AND s.sampled_at = n.sampled_at;

-- name: finish_run
WITH finished AS (
    UPDATE {schema}.crawl_runs
    SET heartbeat_at = now(), finished_at = now(), finish_reason = %(reason)s, stats = %(stats)s
    WHERE id = %(run_id)s
)
INSERT INTO {schema}.crawl_samples (run_id, figures) VALUES (%(run_id)s, %(figures)s)
ON CONFLICT DO NOTHING;

-- name: read_salt
SELECT salt FROM {schema}.source;

-- name: remember_limits
-- The client makes the hash, so that the key never reaches the server.
INSERT INTO {schema}.rate_limits (key_hash, learnt, paused_until)
VALUES (%(key_hash)s, %(learnt)s, now() + %(paused_for_s)s * interval '1 second')
ON CONFLICT (key_hash) DO UPDATE
SET learnt = excluded.learnt, paused_until = excluded.paused_until, updated_at = now();

-- name: recall_limits
-- Times as ages by the server's clock, because the clocks of two machines may differ.
SELECT learnt, extract(epoch FROM now() - updated_at)::float8 AS age_s,
    greatest(0, extract(epoch FROM greatest(paused_until, blocked_until) - now()))::float8
        AS paused_for_s
FROM {schema}.rate_limits WHERE key_hash = %(key_hash)s;

-- name: take_permits
-- Exact types, so that no function of that name and other types is called.
SELECT granted, wait_s, accepted, paused_s, learned
FROM {schema}.take_permits(
    %(key_hash)s::text, %(wanted)s::integer, %(limits)s::jsonb, %(latency_s)s::float8,
    %(report)s::jsonb
);
