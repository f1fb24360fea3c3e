-- What `scrapy export` reads. {schema} is replaced by the quoted name of DB_SCHEMA. A timestamp is
-- ISO 8601 in the session's time zone, which is UTC, as JSON has it.

-- name: count
SELECT count(*) FROM {schema}.events
WHERE %(since)s::timestamptz IS NULL OR "timestamp" >= %(since)s::timestamptz;

-- name: csv
COPY (
    SELECT id, session_id, user_id, type, name, properties, to_json("timestamp") #>> '{}'
           AS "timestamp", session, extra
    FROM {schema}.events
    WHERE %(since)s::timestamptz IS NULL OR "timestamp" >= %(since)s::timestamptz
) TO STDOUT WITH (FORMAT csv, HEADER);

-- name: jsonl
-- JSON escapes control characters, so nothing is ever quoted: a line is the JSON text as it is.
COPY (
    SELECT row_to_json(e) FROM (
        SELECT id, session_id, user_id, type, name, properties, "timestamp", session, extra
        FROM {schema}.events
        WHERE %(since)s::timestamptz IS NULL OR "timestamp" >= %(since)s::timestamptz
    ) AS e
) TO STDOUT WITH (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02');

-- name: rows
-- JSON columns as their JSON text.
SELECT id, session_id, user_id, type, name, properties::text, "timestamp", session::text,
       extra::text
FROM {schema}.events
WHERE %(since)s::timestamptz IS NULL OR "timestamp" >= %(since)s::timestamptz;
