-- Reading and writing the ledger. {schema} is replaced by the quoted name of DB_SCHEMA, {chain} by
-- chain.sql.

-- name: state
-- What earlier runs have recorded: the newest pass, the lowest number of a checking pass, whether
-- the pass's ranges have a before_id, the total in its newest range, and the limit of its last
-- range. The number of a pass whose ranges were deleted isn't used again.
WITH newest AS (
    SELECT greatest(max(pass), (SELECT max(pass) FROM {schema}.proofs),
                    (SELECT max(pass) FROM {schema}.seams), 0) AS pass,
           least(min(pass), 0) AS checks
    FROM {schema}.checkpoint
)
SELECT newest.pass, newest.checks,
       NOT EXISTS (SELECT 1 FROM {schema}.checkpoint AS c
                   WHERE c.pass = newest.pass AND c.repeated IS NULL) AS has_seams,
       (SELECT c.total FROM {schema}.checkpoint AS c WHERE c.pass = newest.pass
        ORDER BY c.committed_at DESC, c.first_offset DESC LIMIT 1) AS last_total,
       s.page_limit, s.overlap,
       (SELECT c.requested FROM {schema}.checkpoint AS c
        WHERE c.pass = newest.pass AND c.first_offset > 0
        ORDER BY c.first_offset DESC LIMIT 1) AS width
FROM newest CROSS JOIN {schema}.source AS s;

-- name: newest_proof
SELECT pass, head_id, tail_id, count, total, short, method
FROM {schema}.proofs AS p
WHERE EXISTS (SELECT 1 FROM {schema}.checkpoint AS c WHERE c.pass = p.pass)
ORDER BY pass DESC LIMIT 1;

-- name: distinct_ids
-- Stored and rejected events, counted in their tables.
SELECT (SELECT count(*) FROM {schema}.events) + (SELECT count(*) FROM {schema}.rejected_events);

-- name: chain_end
{chain}
SELECT stop, last_id FROM chain WHERE stop <= %(before)s ORDER BY stop DESC LIMIT 1;

-- name: locate
-- Which of %(ids)s are at an edge of a piece, with their offsets.
{chain}
SELECT DISTINCT "position", id
FROM pieces CROSS JOIN LATERAL (
    VALUES (first - 1, before_id), (first, first_id), (stop - 1, last_id)) AS edge ("position", id)
WHERE id = ANY (%(ids)s)
ORDER BY 1, 2;

-- name: doubts
-- Seams between %(after)s and %(before)s that are neither exact nor joined, with the ids on either side.
{chain}
SELECT first, ARRAY[left_before_id, left_first_id, left_last_id],
       ARRAY[before_id, first_id, last_id], coalesce(same, false)
FROM joints AS j
WHERE NOT exact AND first > %(after)s AND first < %(before)s
  AND NOT EXISTS (SELECT 1 FROM {schema}.seams AS s
                  WHERE s.pass = %(pass)s AND s.first_offset = j.first AND s.kind <> 'base')
ORDER BY first
LIMIT %(most)s;

-- name: join
-- Seams that are proved without being exact. execute_values fills %%s.
INSERT INTO {schema}.seams (pass, first_offset, kind, depth, readings, run_id)
VALUES %s
ON CONFLICT (pass, first_offset, kind) DO UPDATE
SET depth = excluded.depth, readings = excluded.readings, run_id = excluded.run_id,
    joined_at = now();

-- name: unjoin
DELETE FROM {schema}.seams WHERE pass = %(pass)s AND kind = %(kind)s;

-- name: figures
-- Sums over a pass and over the tables; of seams, those before %(before)s.
{chain}, own AS (SELECT * FROM {schema}.checkpoint WHERE pass = %(pass)s)
SELECT (SELECT count(*) FROM joints AS j
        WHERE NOT exact AND first < %(before)s
          AND NOT EXISTS (SELECT 1 FROM {schema}.seams AS s
                                        WHERE s.pass = %(pass)s AND s.first_offset = j.first
                                          AND s.kind = 'anchor')),
       (SELECT coalesce(sum(depth), 0)::bigint FROM {schema}.seams
        WHERE pass = %(pass)s AND kind = 'deep' AND first_offset < %(before)s),
       (SELECT coalesce(sum(inserted), 0)::bigint FROM own),
       (SELECT count(*) FROM {schema}.checkpoint
        WHERE received <> inserted + duplicates + rejected),
       (SELECT coalesce(sum(inserted), 0)::bigint FROM {schema}.checkpoint)
       + (SELECT count(*) FROM {schema}.rejected_events),
       (SELECT count(*) FROM {schema}.rejected_events),
       (SELECT min(total) FROM own), (SELECT max(total) FROM own),
       coalesce((SELECT first_id FROM own WHERE first_offset = 0), ''),
       EXISTS (SELECT 1 FROM base),
       (SELECT coalesce(sum(stop - greatest(first, coalesce(reached, 0))), 0)::bigint FROM chain),
       (SELECT coalesce(sum(duplicates), 0)::bigint FROM own
        WHERE first_offset >= (SELECT stop FROM base));

-- name: prove
-- The closed form of a set that was proved, in one row.
INSERT INTO {schema}.proofs (pass, head_id, tail_id, count, total, short, method, run_id)
VALUES (%(pass)s, %(head_id)s, %(tail_id)s, %(count)s, %(total)s, %(short)s, %(method)s, %(run_id)s)
ON CONFLICT (pass) DO UPDATE
SET head_id = excluded.head_id, tail_id = excluded.tail_id, count = excluded.count,
    total = excluded.total, short = excluded.short, method = excluded.method, run_id = excluded.run_id, proved_at = now();

-- name: prune
-- Deletes what a look that found nothing new has left behind, as soon as a proof after the next has
-- taken its place: its pages, and the seams of passes before. A page stays that has stored or
-- rejected something, or has fetched rejected events again. Proofs stay for a day.
WITH last AS (
    SELECT pass, proved_at FROM {schema}.proofs ORDER BY pass DESC OFFSET 1 LIMIT 1
), front AS (
    SELECT min(pass) AS pass FROM {schema}.checkpoint WHERE pass > 0
), pages AS (
    DELETE FROM {schema}.checkpoint AS c USING last, front
    WHERE c.pass < last.pass AND c.pass <> front.pass AND c.committed_at < last.proved_at
      AND c.inserted = 0 AND c.rejected = 0
      AND NOT EXISTS (SELECT 1 FROM {schema}.checkpoint AS r
                      WHERE r.rejected > 0 AND r.first_offset < c.first_offset + c.received
                        AND r.first_offset + r.received > c.first_offset)
), joined AS (
    DELETE FROM {schema}.seams AS s USING last, front
    WHERE s.pass < last.pass AND s.pass <> front.pass
)
DELETE FROM {schema}.proofs AS p USING last
WHERE p.pass < last.pass AND p.proved_at < now() - interval '1 day'
  AND NOT EXISTS (SELECT 1 FROM {schema}.checkpoint AS c WHERE c.pass = p.pass);

-- name: overlap
-- Locked, so that none of two processes stores seams of a narrower overlap while the other
-- remembers a wider one.
SELECT overlap FROM {schema}.source FOR SHARE;

-- name: remember
UPDATE {schema}.source
SET page_limit = coalesce(%(page_limit)s, page_limit),
    overlap = greatest(coalesce(%(overlap)s, overlap), overlap);

-- name: cursor
-- The cursor that a pass ends with and the offset after it, if the cursor hasn't expired.
SELECT next_cursor, first_offset + received AS "position"
FROM {schema}.checkpoint
WHERE pass = %(pass)s
  AND first_offset = (SELECT max(first_offset) FROM {schema}.checkpoint WHERE pass = %(pass)s)
  AND next_cursor IS NOT NULL AND coalesce(cursor_expires_at > now(), true);

-- name: rejected_positions
SELECT "position" FROM {schema}.rejected_events ORDER BY "position";

-- name: committed_ranges
-- Which of these (pass, first_offset) are committed, with their counts: read after a COMMIT whose
-- outcome is unknown.
SELECT pass, first_offset, inserted, duplicates, changed, rejected
FROM {schema}.checkpoint
WHERE (pass, first_offset) IN %(ranges)s;

-- name: insert_ranges
-- One row per page, in the transaction of the page's rows. execute_values fills %%s.
INSERT INTO {schema}.checkpoint (
    pass, first_offset, requested, received, inserted, duplicates, changed, rejected, repeated,
    before_id, first_id, last_id, total, run_id, next_cursor, cursor_expires_at)
VALUES %s;

-- name: learn_total
-- The API's latest total.
UPDATE {schema}.source SET total = %(total)s, updated_at = now()
WHERE total IS DISTINCT FROM %(total)s;
