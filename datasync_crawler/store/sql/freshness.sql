-- How old what is stored is. {schema} is replaced by the quoted name of DB_SCHEMA. Times leave as
-- epoch seconds by the database's clock.

-- name: freshness
-- Now, the last proof, and how the newest run stands: its number, when it ended and why, and how
-- long it has been silent, in seconds.
SELECT extract(epoch FROM now())::float8,
       (SELECT extract(epoch FROM max(proved_at))::float8 FROM {schema}.proofs),
       r.id, extract(epoch FROM r.finished_at)::float8, r.finish_reason,
       extract(epoch FROM now() - r.heartbeat_at)::float8
FROM (VALUES (1)) AS one
LEFT JOIN (SELECT * FROM {schema}.crawl_runs ORDER BY id DESC LIMIT 1) AS r ON true;

-- name: newest_event
-- Reads the whole table, unless somebody has made an index on "timestamp".
SELECT extract(epoch FROM max("timestamp"))::float8 FROM {schema}.events
WHERE "timestamp" < 'infinity';
