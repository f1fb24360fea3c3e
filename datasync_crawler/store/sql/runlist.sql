-- The list of runs, for the dashboard and the status. {schema} is replaced by the quoted name of
-- DB_SCHEMA. Times leave as epoch seconds or as seconds by the database's clock.

-- name: processes
-- Processes that have no end yet and have been alive in the last ten minutes, with the chunks that
-- they hold and whether they hold the proof.
SELECT r.id, r.host, r.pid,
       extract(epoch FROM now())::float8 - extract(epoch FROM r.heartbeat_at)::float8,
       left(r.stats->>'events/received', 40), coalesce(bool_or(l.kind = 'proof'), false),
       coalesce(json_agg(json_build_array(l.first, l.stop) ORDER BY l.first)
                FILTER (WHERE l.kind = 'chunk'), '[]')
FROM {schema}.crawl_runs AS r
LEFT JOIN {schema}.leases AS l ON l.run_id = r.id AND l.owner IS NOT NULL
WHERE r.finished_at IS NULL AND r.heartbeat_at > now() - interval '10 minutes'
GROUP BY r.id
ORDER BY r.id
LIMIT 100;

-- name: runs
-- The newest runs, without their stats but for a few figures. Not cast: what stands there may be
-- anything that another role has written.
SELECT id, host, pid,
       extract(epoch FROM started_at)::float8 AS started_at,
       extract(epoch FROM finished_at)::float8 AS finished_at,
       extract(epoch FROM coalesce(finished_at, heartbeat_at))::float8
           - extract(epoch FROM started_at)::float8 AS lasted_s,
       extract(epoch FROM now())::float8 - extract(epoch FROM heartbeat_at)::float8 AS silent_s,
       finish_reason,
       stats->>'crawl/complete' AS complete,
       left(stats->>'events/inserted', 40) AS inserted,
       left(stats->>'events/rejected', 40) AS rejected,
       left(stats->>'events/received', 40) AS received
FROM {schema}.crawl_runs
ORDER BY id DESC
LIMIT %(most)s;
