-- The chain of a pass, for other statements: {chain} in them is replaced by this. {schema} is
-- replaced by the quoted name of DB_SCHEMA; %(pass)s is the pass.

-- name: chain
-- pieces: the ranges of the pass and, where it stands on one, what was proved before (its base: all
-- but the first event, which is the event before it). chain: the pieces that reach beyond all before
-- them. joints: where two of them meet; a joint is exact when they share an event, the one's last
-- and the one before the other, and neither holds events that came twice without a reason: in the
-- first pass any, later any beside new ones. (Ids twice in one response are the API's own doing.)
-- Of an API whose order isn't stable none is exact: the same event may stand there by chance.
WITH base AS (
    SELECT s.first_offset + 1 AS first, s.first_offset + p.count AS stop, p.head_id, p.tail_id
    FROM {schema}.seams AS s
    CROSS JOIN LATERAL (SELECT count, head_id, tail_id FROM {schema}.proofs
                        WHERE pass < s.pass ORDER BY pass DESC LIMIT 1) AS p
    WHERE s.pass = %(pass)s AND s.kind = 'base'
), pieces AS (
    SELECT first_offset AS first, first_offset + received AS stop, before_id, first_id, last_id,
           duplicates > coalesce(repeated, 0)
           AND (inserted > 0 OR pass = (SELECT min(pass) FROM {schema}.checkpoint WHERE pass > 0))
           AS odd
    FROM {schema}.checkpoint WHERE pass = %(pass)s
    UNION ALL
    SELECT first, stop, head_id, NULL, tail_id, false FROM base
), reaching AS (
    SELECT *, max(stop) OVER (ORDER BY first, stop
                              ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
    FROM pieces
), chain AS (
    SELECT *, lag(stop) OVER own AS left_stop, lag(before_id) OVER own AS left_before_id,
           lag(first_id) OVER own AS left_first_id, lag(last_id) OVER own AS left_last_id,
           lag(odd) OVER own AS left_odd
    FROM reaching WHERE reached IS NULL OR stop > reached
    WINDOW own AS (ORDER BY first)
), joints AS (
    SELECT *, coalesce(same AND NOT odd AND NOT left_odd
                       AND (SELECT overlap = 1 FROM {schema}.source), false) AS exact
    FROM (SELECT *, left_stop = first AND left_last_id = before_id AS same FROM chain) AS chain
    WHERE first <= left_stop
)
