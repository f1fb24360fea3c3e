-- Statements of `scrapy verify` and `scrapy status`, which only read. {schema} is replaced by the
-- quoted name of DB_SCHEMA.

-- name: known_source
-- The API of this schema and the last known total: from the pages, or from the proof for an API
-- that sends none.
SELECT s.api_base_url,
       coalesce(s.total, (SELECT p.count FROM {schema}.proofs AS p ORDER BY p.pass DESC LIMIT 1))
FROM {schema}.source AS s;

-- name: page_size
-- What the newest pass asked for, once it knew what the API serves; NULL: nothing is committed.
SELECT coalesce(max(requested) FILTER (WHERE first_offset > 0), max(requested))
FROM {schema}.checkpoint WHERE pass = %(pass)s;

-- name: newest_pass
SELECT greatest(coalesce(max(pass), 0), 0) FROM {schema}.checkpoint;

-- name: extent
-- Of a pass: committed offsets below %(total)s, gaps there, its reach, and its exact seams.
{chain}
SELECT (SELECT coalesce(sum(greatest(0, least(stop, %(total)s)
                                        - greatest(first, coalesce(reached, 0)))), 0)::bigint
        FROM chain WHERE first < %(total)s),
       (SELECT count(*) FILTER (WHERE first > coalesce(reached, 0))
               + CASE WHEN coalesce(max(stop), 0) < %(total)s THEN 1 ELSE 0 END
        FROM chain WHERE first < %(total)s),
       (SELECT coalesce(max(stop), 0) FROM chain),
       (SELECT count(*) FROM joints WHERE exact);

-- name: has_seams
-- Whether the pass was fetched with an overlap: neither by cursor nor by numbered pages.
SELECT (SELECT count(*) FROM {schema}.checkpoint WHERE pass = %(pass)s) < 2
       OR EXISTS (SELECT 1 FROM {schema}.checkpoint
                  WHERE pass = %(pass)s AND before_id IS NOT NULL);

-- name: joined_seams
-- Seams that aren't exact, by the kind that joined them; "doubt" for those that aren't joined.
{chain}
SELECT coalesce((SELECT s.kind FROM {schema}.seams AS s
                 WHERE s.pass = %(pass)s AND s.first_offset = j.first AND s.kind <> 'base'
                 ORDER BY s.joined_at DESC LIMIT 1), 'doubt') AS kind, count(*)
FROM joints AS j WHERE NOT exact
GROUP BY 1 ORDER BY 1;

-- name: chain_rows
-- The evidence: each piece of the chain with its edges, and what joins it to the piece before.
{chain}
SELECT first, stop - first, before_id, first_id, last_id, left_last_id,
       CASE WHEN left_stop IS NULL THEN 'front' WHEN exact THEN 'exact'
            ELSE coalesce((SELECT s.kind FROM {schema}.seams AS s
                           WHERE s.pass = %(pass)s AND s.first_offset = c.first
                             AND s.kind <> 'base'
                           ORDER BY s.joined_at DESC LIMIT 1), 'doubt') END
FROM (SELECT c.*, coalesce(j.exact, false) AS exact
      FROM chain AS c LEFT JOIN joints AS j USING (first)) AS c
ORDER BY first;

-- name: proofs
SELECT pass, head_id, tail_id, count, total, short, method,
       to_char(proved_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
FROM {schema}.proofs ORDER BY pass DESC LIMIT 1;

-- name: sums
-- Sums over the ledger, and the number of rejected events.
SELECT coalesce(sum(received), 0)::bigint AS received,
       coalesce(sum(inserted), 0)::bigint AS inserted,
       coalesce(sum(duplicates), 0)::bigint AS duplicates,
       coalesce(sum(changed) FILTER (WHERE pass > 0), 0)::bigint AS changed,
       coalesce(sum(rejected), 0)::bigint AS rejected,
       count(*) AS ranges,
       (SELECT count(*) FROM {schema}.rejected_events)
FROM {schema}.checkpoint;

-- name: unbalanced
SELECT count(*) FROM {schema}.checkpoint WHERE received <> inserted + duplicates + rejected;

-- name: stored
-- Rows and distinct ids. They differ only if the primary key was dropped.
SELECT count(*), count(DISTINCT id) FROM {schema}.events;

-- name: rejections_astray
-- Ranges whose rejections aren't all stored, and which no later range has fetched again.
SELECT count(*)
FROM {schema}.checkpoint AS c
WHERE c.rejected > 0 AND c.pass > 0
  AND c.rejected > (SELECT count(*) FROM {schema}.rejected_events AS r
                    WHERE r."position" >= c.first_offset
                      AND r."position" < c.first_offset + c.received)
  AND NOT EXISTS (SELECT 1 FROM {schema}.checkpoint AS later
                  WHERE (later.committed_at, later.pass) > (c.committed_at, c.pass)
                    AND later.first_offset < c.first_offset + c.received
                    AND later.first_offset
                        >= c.first_offset - (SELECT max(received) FROM {schema}.checkpoint)
                    AND later.first_offset + later.received > c.first_offset);

-- name: is_running
SELECT EXISTS (SELECT 1 FROM {schema}.crawl_runs
               WHERE finished_at IS NULL
                 AND heartbeat_at > now() - %(silent_after_s)s * interval '1 second');

-- name: rejection_reasons
SELECT reason, count(*) FROM {schema}.rejected_events GROUP BY reason ORDER BY 2 DESC, 1;

-- name: stored_events
SELECT id, session_id, user_id, type, name, properties::text, session::text, extra::text,
       "timestamp"
FROM {schema}.events WHERE id = ANY (%(ids)s);
