-- Runs, their heartbeat and their samples. {schema} is replaced by the quoted name of DB_SCHEMA.

-- name: name_source
-- The first run names the API of this schema.
INSERT INTO {schema}.source (api_base_url, pagination)
VALUES (%(api_base_url)s, %(pagination)s)
ON CONFLICT (singleton) DO NOTHING;

-- name: read_source
SELECT api_base_url FROM {schema}.source;

-- name: start_run
INSERT INTO {schema}.crawl_runs (host, pid) VALUES (%(host)s, %(pid)s) RETURNING id;

-- name: beat
UPDATE {schema}.crawl_runs SET heartbeat_at = now(), stats = %(stats)s WHERE id = %(run_id)s;

-- name: sample
INSERT INTO {schema}.crawl_samples (run_id, figures) VALUES (%(run_id)s, %(figures)s)
ON CONFLICT DO NOTHING;

-- name: finish_run
UPDATE {schema}.crawl_runs
SET heartbeat_at = now(), finished_at = now(), finish_reason = %(reason)s, stats = %(stats)s
WHERE id = %(run_id)s;

-- name: read_salt
SELECT salt FROM {schema}.source;

-- name: remember_limits
-- The hash is made by the client: the key never reaches the server.
INSERT INTO {schema}.rate_limits (key_hash, learnt, paused_until)
VALUES (%(key_hash)s, %(learnt)s, now() + %(paused_for_s)s * interval '1 second')
ON CONFLICT (key_hash) DO UPDATE
SET learnt = excluded.learnt, paused_until = excluded.paused_until, updated_at = now();

-- name: recall_limits
SELECT learnt, greatest(0, extract(epoch FROM paused_until - now()))::float8 AS paused_for_s
FROM {schema}.rate_limits WHERE key_hash = %(key_hash)s;
