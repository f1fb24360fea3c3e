-- Leases: who fetches what, and who proves. {schema} is replaced by the quoted name of DB_SCHEMA.
-- All times are the database's (clock_timestamp), because the clocks of two machines may differ.

-- name: begin
-- The lease of the proof; there is one per schema.
INSERT INTO {schema}.leases (kind, pass, first, stop) VALUES ('proof', 0, 0, 0)
ON CONFLICT (kind, pass, first) DO NOTHING;

-- name: look
SELECT epoch, coalesce(expires_at > clock_timestamp(), false), coalesce(decided, 0),
       coalesce(extract(epoch FROM clock_timestamp() - decided_at), 0)::float8, verdict, settings
FROM {schema}.leases WHERE kind = 'proof';

-- name: claim_proof
-- A holder that is gone holds it until expires_at.
UPDATE {schema}.leases AS l
SET epoch = l.epoch + 1, owner = %(owner)s, run_id = %(run_id)s, settings = %(settings)s,
    expires_at = clock_timestamp() + %(length_s)s * interval '1 second'
FROM (SELECT id FROM {schema}.leases
      WHERE kind = 'proof' AND (expires_at > clock_timestamp()) IS NOT TRUE
      FOR UPDATE SKIP LOCKED) AS free
WHERE l.id = free.id
RETURNING l.id, l.epoch;

-- name: decide
UPDATE {schema}.leases
SET owner = NULL, expires_at = NULL, decided = epoch, decided_at = clock_timestamp(),
    verdict = %(verdict)s
WHERE id = %(id)s AND epoch = %(epoch)s
RETURNING id;

-- name: offer
-- Chunks for anybody. execute_values fills %%s.
INSERT INTO {schema}.leases (kind, pass, first, stop, floor, shift, page_size)
VALUES %s
ON CONFLICT (kind, pass, first) DO NOTHING;

-- name: claim
-- The first chunk that nobody holds, with what was remembered of the API.
UPDATE {schema}.leases AS l
SET epoch = l.epoch + 1, owner = %(owner)s, run_id = %(run_id)s,
    expires_at = clock_timestamp() + %(length_s)s * interval '1 second'
FROM (SELECT id FROM {schema}.leases
      WHERE kind = 'chunk' AND (expires_at > clock_timestamp()) IS NOT TRUE
      ORDER BY first LIMIT 1
      FOR UPDATE SKIP LOCKED) AS free, {schema}.source AS s
WHERE l.id = free.id
RETURNING l.id, l.epoch, l.pass, l.first, l.stop, l.floor, l.shift, l.page_size, s.overlap,
          s.page_limit;

-- name: finish
DELETE FROM {schema}.leases WHERE (id, epoch) IN %(leases)s AND kind = 'chunk';

-- name: left
SELECT count(*) FROM {schema}.leases WHERE kind = 'chunk';

-- name: withdraw
-- Chunks that nobody holds, and how many others there are.
WITH free AS (
    SELECT id FROM {schema}.leases
    WHERE kind = 'chunk' AND (expires_at > clock_timestamp()) IS NOT TRUE
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {schema}.leases WHERE id IN (SELECT id FROM free) RETURNING id
)
SELECT (SELECT count(*) FROM {schema}.leases WHERE kind = 'chunk') - (SELECT count(*) FROM gone);

-- name: renew
-- A lease that has expired is renewed as well, as long as nobody has claimed it: the epoch counts.
UPDATE {schema}.leases SET expires_at = clock_timestamp() + %(length_s)s * interval '1 second'
WHERE (id, epoch) IN %(leases)s AND owner IS NOT NULL;

-- name: let_go
UPDATE {schema}.leases SET owner = NULL, expires_at = NULL WHERE (id, epoch) IN %(leases)s;

-- name: fence
-- Those of these leases that are still as they were claimed; nobody can claim them before this
-- transaction ends. A key-share lock lets renewals and the process's other writers through, and
-- makes no new version of the row.
SELECT id, epoch FROM {schema}.leases WHERE (id, epoch) IN %(leases)s FOR KEY SHARE;
