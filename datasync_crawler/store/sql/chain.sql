-- The chain of a pass. It replaces {chain} in other statements. {schema} is replaced by the quoted
-- name of DB_SCHEMA; %(pass)s is the pass.

-- name: chain
-- base: the proved set that the pass continues, without its first event, which is its before_id.
-- pieces: the ranges of the pass and the base. chain: the pieces that reach beyond earlier ones.
-- odd: the piece holds unexplained duplicates beside new events; ids repeated within one response
-- don't count. joints: where two pieces of the chain meet.
-- exact: the last event of the left piece is the one before the right piece, neither is odd, and
-- the API's order is stable (overlap 1); in an unstable order the ids may match by chance.
WITH base AS (
    SELECT s.first_offset + 1 AS first, s.first_offset + p.count AS stop, p.head_id, p.tail_id
    FROM {schema}.seams AS s
    CROSS JOIN LATERAL (SELECT count, head_id, tail_id FROM {schema}.proofs
                        WHERE pass < s.pass ORDER BY pass DESC LIMIT 1) AS p
    WHERE s.pass = %(pass)s AND s.kind = 'base'
), pieces AS (
    SELECT first_offset AS first, first_offset + received AS stop, before_id, first_id, last_id,
           duplicates > coalesce(repeated, 0) AND inserted > 0 AS odd
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
