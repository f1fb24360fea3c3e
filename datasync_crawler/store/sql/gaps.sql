-- The gaps of a pass, for planner and proof alike (store/gaps.py). {schema} is replaced by the
-- quoted name of DB_SCHEMA.

-- name: base
-- The proved set that the pass continues, as [first, stop); no row when there is none.
SELECT s.first_offset + 1, s.first_offset + (SELECT p.count FROM {schema}.proofs AS p
                                             WHERE p.pass < s.pass ORDER BY p.pass DESC LIMIT 1)
FROM {schema}.seams AS s WHERE s.pass = %(pass)s AND s.kind = 'base';

-- name: longest_range
-- The longest range: no range that begins further before an offset reaches it.
SELECT coalesce(max(received), 0) FROM {schema}.checkpoint;

-- name: gaps
-- The first %(most)s gaps of a pass in [%(after)s, %(total)s) that end at a committed range, each
-- with the beginning of the range before it. A running maximum finds them, because ranges may
-- overlap. No range that begins before %(from)s reaches %(after)s. With literal limits PostgreSQL
-- reads the key in its order and stops at the last row wanted: 0.4 s for 1,000,000 ranges without
-- a gap.
SELECT reached AS first, first_offset AS stop, floor
FROM (
    SELECT first_offset,
           greatest(%(after)s, max(first_offset + received) OVER (
               ORDER BY first_offset
               ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS reached,
           coalesce(lag(first_offset) OVER (ORDER BY first_offset), 0) AS floor
    FROM {schema}.checkpoint
    WHERE pass = %(pass)s AND first_offset < %(total)s AND first_offset >= %(from)s
) AS committed
WHERE first_offset > reached
ORDER BY first_offset
LIMIT %(most)s;

-- name: reach_below
-- The end of the farthest range of a pass that begins below %(total)s, and the beginning of the
-- last one: the offsets behind it are a gap, too.
SELECT coalesce(max(first_offset + received), 0), coalesce(max(first_offset), 0)
FROM {schema}.checkpoint
WHERE pass = %(pass)s AND first_offset < %(total)s;
