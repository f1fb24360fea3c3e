-- Reading and writing the ledger. {schema} is replaced by the quoted name of DB_SCHEMA.

-- name: ledger_state
-- Where the last run left off: the newest pass (0: none), the end of what was ever committed,
-- and what the API was last known to be.
SELECT coalesce((SELECT max(pass) FROM {schema}.checkpoint), 0) AS last_pass,
       coalesce((SELECT max(first_offset + received) FROM {schema}.checkpoint), 0) AS reach,
       s.total, s.page_limit, s.pagination
FROM {schema}.source AS s;

-- name: longest_range
-- How far before an offset the ranges begin that reach beyond it.
SELECT coalesce(max(received), 0) FROM {schema}.checkpoint;

-- name: holes
-- The uncommitted ranges in [%(after)s, %(total)s) that end at a committed one, first to last, at
-- most %(most)s of them. A running maximum, not lag: ranges of different passes overlap and lie
-- within one another. No range that begins before %(from)s reaches %(after)s. The limits are
-- literals to the planner: so it reads the key in its order and stops at the last row wanted.
-- A ledger of 1,000,000 ranges says in 0.4 s that it has no hole (0.8 s before its first ANALYZE);
-- 500,000 holes come in 0.7 s (5 s), 1,000 at a time. With a sort each they took 50 s.
SELECT reached AS first, first_offset AS stop
FROM (
    SELECT first_offset,
           greatest(%(after)s, max(first_offset + received) OVER (
               ORDER BY first_offset
               ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS reached
    FROM {schema}.checkpoint
    WHERE first_offset < %(total)s AND first_offset >= %(from)s
) AS committed
WHERE first_offset > reached
ORDER BY first_offset
LIMIT %(most)s;

-- name: reach_below
-- The end of the farthest range that begins below %(total)s: what lies behind it is a hole, too.
SELECT coalesce(max(first_offset + received), 0)
FROM {schema}.checkpoint
WHERE first_offset < %(total)s;

-- name: coverage
-- How many offsets of [0, %(total)s) are committed.
WITH committed AS (
    SELECT first_offset, least(first_offset + received, %(total)s) AS stop,
           coalesce(max(first_offset + received) OVER (
               ORDER BY first_offset
               ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS reached
    FROM {schema}.checkpoint
    WHERE first_offset < %(total)s
)
SELECT coalesce(sum(greatest(0, stop - greatest(first_offset, reached))), 0)::bigint
FROM committed;

-- name: live_cursor
-- Where a crawl by cursor left off, if the newest pass ends in a cursor that is still good. A run
-- that came to its end has left nothing off, though its last page may have named a cursor, too.
SELECT next_cursor, first_offset + received AS "position"
FROM {schema}.checkpoint AS c
WHERE pass = (SELECT max(pass) FROM {schema}.checkpoint)
  AND first_offset = (SELECT max(first_offset) FROM {schema}.checkpoint
                      WHERE pass = (SELECT max(pass) FROM {schema}.checkpoint))
  AND next_cursor IS NOT NULL AND coalesce(cursor_expires_at > now(), true)
  AND NOT EXISTS (SELECT 1 FROM {schema}.crawl_runs AS r
                  WHERE r.id = c.run_id AND (r.stats->>'crawl/complete')::boolean);

-- name: last_id_before
-- No range that begins farther before %(end)s than the longest one is long ends there.
SELECT last_id
FROM {schema}.checkpoint
WHERE first_offset < %(end)s
  AND first_offset >= %(end)s - (SELECT max(received) FROM {schema}.checkpoint)
  AND first_offset + received = %(end)s
ORDER BY pass DESC
LIMIT 1;

-- name: ledger_sums
-- The ledger's figures in sum.
SELECT coalesce(sum(received), 0)::bigint AS received,
       coalesce(sum(inserted), 0)::bigint AS inserted,
       coalesce(sum(duplicates), 0)::bigint AS duplicates,
       coalesce(sum(changed), 0)::bigint AS changed,
       coalesce(sum(rejected), 0)::bigint AS rejected,
       count(*) AS ranges
FROM {schema}.checkpoint;

-- name: rejected_count
-- Events that stand rejected now (a range fetched again replaces or removes its rejections).
SELECT count(*) FROM {schema}.rejected_events;

-- name: rejected_positions
SELECT "position" FROM {schema}.rejected_events ORDER BY "position";

-- name: standing_doubt
-- How offsets were seen to move ("changed" or "shrunk"), when no run since has proved that nothing
-- was missed: no row, or the doubt. The heartbeat writes it, within a second.
SELECT doubt
FROM (SELECT stats->>'crawl/in_doubt' AS doubt FROM {schema}.crawl_runs
      WHERE stats->>'crawl/in_doubt' IS NOT NULL OR (stats->>'crawl/complete')::boolean
      ORDER BY id DESC LIMIT 1) AS newest
WHERE doubt IS NOT NULL;

-- name: committed_ranges
-- Which of these (pass, first_offset) are committed, with their counts: asked after a COMMIT
-- whose outcome is unknown.
SELECT pass, first_offset, inserted, duplicates, changed, rejected
FROM {schema}.checkpoint
WHERE (pass, first_offset) IN %(ranges)s;

-- name: insert_ranges
-- One row a page, in the transaction of the page's rows. %%s is execute_values' place.
INSERT INTO {schema}.checkpoint (
    pass, first_offset, requested, received, inserted, duplicates, changed, rejected,
    first_id, last_id, run_id, next_cursor, cursor_expires_at)
VALUES %s;

-- name: learn_source
-- What the API said last of itself.
UPDATE {schema}.source
SET total = coalesce(%(total)s, total), page_limit = coalesce(%(page_limit)s, page_limit),
    updated_at = now()
WHERE total IS DISTINCT FROM coalesce(%(total)s, total)
   OR page_limit IS DISTINCT FROM coalesce(%(page_limit)s, page_limit);
