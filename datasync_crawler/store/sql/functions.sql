-- Every function of the crawler, made when it is missing and replaced when it differs from this
-- file (store.functions). {schema} is replaced by the quoted name of DB_SCHEMA.

-- name: permits_used
-- Of the grants, how many still count for a window, and in how many seconds fewer than *requests*
-- do; NULL when fewer do already.
CREATE FUNCTION {schema}.permits_used(
    grants jsonb, now_s double precision, requests bigint, window_s double precision,
    OUT used bigint, OUT full_s double precision
) LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $used$
    SELECT coalesce(sum(e.number), 0),
        max(e.late_at + window_s - now_s) FILTER (WHERE e.newer >= requests)
    FROM (
        SELECT late_at, number,
            sum(number) OVER (ORDER BY late_at DESC ROWS UNBOUNDED PRECEDING) AS newer
        FROM (
            SELECT least((g->>0)::float8, now_s) + (g->>1)::float8 AS late_at,
                (g->>2)::bigint AS number
            FROM jsonb_array_elements(grants) AS g
        ) AS log
        WHERE late_at > now_s - window_s
    ) AS e
$used$;

-- name: take_permits
-- Grants permits to send requests with one API key, over all processes (docs/rate-limits.md).
CREATE FUNCTION {schema}.take_permits(
    key_hash text,
    wanted integer,
    limits jsonb DEFAULT NULL,
    latency_s double precision DEFAULT 0,
    report jsonb DEFAULT NULL,
    OUT granted integer,
    OUT wait_s double precision,
    OUT accepted bigint,
    OUT paused_s double precision,
    OUT learned jsonb
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $take$
DECLARE
    -- A probe whose process has died is replaced after so long.
    patience CONSTANT interval := '10 seconds';
    quota record;
    now_at timestamptz;
    now_s double precision;
    -- Until then the request may still arrive at the server.
    late_s double precision := least(greatest(coalesce(latency_s, 0), 0), 60);
    -- The wait for another process's answer.
    poll_s double precision := greatest(0.05, least(1, coalesce(latency_s, 0)));
    in_force jsonb;
    unanswered bigint;
    closed_until timestamptz;
    is_probe boolean := false;
    room bigint := wanted;
    stated integer;
    resets_at timestamptz;
    pair record;
    used bigint;
    full_s double precision;
    longest_s double precision;
BEGIN
    SELECT l.* INTO quota FROM {schema}.rate_limits AS l
    WHERE l.key_hash = take_permits.key_hash FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO {schema}.rate_limits (key_hash, learnt)
        VALUES (take_permits.key_hash, '{}') ON CONFLICT DO NOTHING;
        SELECT l.* INTO quota FROM {schema}.rate_limits AS l
        WHERE l.key_hash = take_permits.key_hash FOR UPDATE;
    END IF;
    now_at := clock_timestamp();  -- behind the lock: grants are in the order of their times
    now_s := extract(epoch FROM now_at);

    -- What the caller's answers have shown.
    quota.accepted := quota.accepted + coalesce((report->>'accepted')::bigint, 0);
    quota.answered := least(
        quota.granted, quota.answered + coalesce((report->>'answered')::bigint, 0));
    -- Refused or not sent: they don't count towards a limit. The newest grants are theirs.
    IF report ? 'returned' THEN
        SELECT coalesce(jsonb_agg(jsonb_build_array(g->0, g->1, left_over) ORDER BY place), '[]')
        INTO quota.grants
        FROM (
            SELECT g, place, least((g->>2)::bigint, sum((g->>2)::bigint) OVER (ORDER BY place DESC)
                - (report->>'returned')::bigint) AS left_over
            FROM jsonb_array_elements(quota.grants) WITH ORDINALITY AS t(g, place)
        ) AS e
        WHERE left_over > 0;
    END IF;
    IF report ? 'learned' THEN
        quota.learned := nullif(report->'learned', 'null');
    END IF;
    IF report ? 'paused_s' THEN
        quota.blocked_until := greatest(
            quota.blocked_until, now_at + make_interval(secs => (report->>'paused_s')::float8));
        quota.probed_at := NULL;
    ELSIF report ? 'resumed' AND quota.blocked_until <= now_at THEN
        quota.blocked_until := NULL;
        quota.probed_at := NULL;
    END IF;
    IF report ? 'remaining' THEN
        stated := (report->>'remaining')::integer;
        resets_at := now_at + make_interval(secs => (report->>'reset_in_s')::float8);
        IF stated = 0 AND quota.advertised IS NOT NULL THEN
            -- In a sliding window the first grants have left it since the answer was asked for.
            -- A reset is at most 2 s too late by rounding: a bucket's next token comes later.
            SELECT CASE WHEN a.asked_s + u.full_s
                > extract(epoch FROM resets_at) - 2 - (now_s - a.asked_s)
                THEN least(resets_at, to_timestamp(a.asked_s + u.full_s)) ELSE resets_at END
            INTO resets_at
            FROM (SELECT now_s - (report->>'sent_age_s')::float8 AS asked_s) AS a,
                LATERAL {schema}.permits_used(
                    quota.grants, a.asked_s, (quota.advertised->>0)::bigint,
                    (quota.advertised->>1)::float8) AS u;
        END IF;
        IF quota.remaining IS NULL
            OR now_at - make_interval(secs => (report->>'sent_age_s')::float8) >= quota.stated_at
        THEN  -- its request was sent after the earlier answers had come
            IF stated < quota.remaining AND quota.resets_at > now_at THEN
                resets_at := least(quota.resets_at, resets_at);  -- the same window
            END IF;
            quota.resets_at := resets_at;
            quota.remaining := stated;
            IF quota.blocked_until IS NULL THEN
                quota.probed_at := NULL;
            END IF;
        ELSE
            quota.remaining := least(quota.remaining, stated);
            quota.resets_at := least(quota.resets_at, resets_at);
        END IF;
        quota.stated_at := now_at;
        IF report ? 'window' THEN
            quota.advertised := nullif(report->'window', 'null');
        END IF;
    END IF;

    -- A pause, or a spent quota: at its end one caller sends a probe, and the others wait for it.
    unanswered := quota.granted - quota.answered;
    IF quota.blocked_until IS NOT NULL THEN
        closed_until := quota.blocked_until;
    ELSIF quota.remaining <= unanswered THEN
        closed_until := coalesce(quota.resets_at, quota.stated_at + patience);
        IF quota.remaining > 0 THEN  -- an answer may show that some are left
            closed_until := closed_until + interval '2 seconds';
        END IF;
        IF quota.advertised IS NOT NULL THEN  -- in a sliding window the first grants leave it sooner
            SELECT least(closed_until, now_at + make_interval(secs => u.full_s)) INTO closed_until
            FROM {schema}.permits_used(
                quota.grants, now_s, (quota.advertised->>0)::bigint,
                (quota.advertised->>1)::float8) AS u;
        END IF;
    END IF;
    wait_s := 0;
    IF closed_until > now_at THEN
        room := 0;
        wait_s := extract(epoch FROM closed_until - now_at);
        IF quota.blocked_until IS NULL AND quota.remaining > 0 THEN
            wait_s := least(wait_s, poll_s);
        END IF;
    ELSIF closed_until IS NOT NULL AND quota.probed_at > now_at - patience THEN
        room := 0;
        wait_s := poll_s;
    ELSIF closed_until IS NOT NULL THEN
        is_probe := true;
        room := least(room, 1);
    ELSE
        room := least(room, quota.remaining - unanswered);
    END IF;

    -- Limits that count requests. A grant counts until `late_s` after it, for a whole window.
    in_force := coalesce(limits, quota.limits, '[]');
    IF jsonb_array_length(limits) > 0 THEN
        quota.limits := limits;
    END IF;
    FOR pair IN
        SELECT (l->>0)::bigint AS requests, (l->>1)::float8 AS window_s
        FROM jsonb_array_elements(in_force) AS l
    LOOP
        IF pair.requests >= 1 AND pair.window_s >= 0 THEN
            SELECT u.used, u.full_s INTO used, full_s
            FROM {schema}.permits_used(quota.grants, now_s, pair.requests, pair.window_s) AS u;
            room := least(room, pair.requests - used);
            wait_s := greatest(wait_s, full_s);
        ELSE
            RAISE EXCEPTION USING MESSAGE = 'take_permits: limits are pairs of requests, from 1 on, '
                || 'and seconds: ' || in_force::text;
        END IF;
    END LOOP;

    granted := greatest(0, room);
    IF granted > 0 THEN
        wait_s := 0;
        IF is_probe THEN
            quota.probed_at := now_at;
            quota.stated_at := now_at;
            quota.answered := quota.granted;  -- what a dead process had is spent until now
        END IF;
        quota.granted := quota.granted + granted;
        quota.grants := quota.grants
            || jsonb_build_array(jsonb_build_array(now_s, late_s, granted));
        -- Beyond 64 entries, those in the same fiftieth of a window become one.
        IF jsonb_array_length(quota.grants) > 64 THEN
            SELECT greatest(60, max((l->>1)::float8)) INTO longest_s
            FROM jsonb_array_elements(in_force || coalesce(quota.limits, '[]')
                || coalesce(jsonb_build_array(quota.advertised), '[]')) AS l;
            SELECT jsonb_agg(jsonb_build_array(m.at, m.late_s, m.number) ORDER BY m.at)
            INTO quota.grants
            FROM (
                SELECT max(e.at) AS at, max(e.late_s) AS late_s, sum(e.number) AS number
                FROM (
                    SELECT least((g->>0)::float8, now_s) AS at, (g->>1)::float8 AS late_s,
                        (g->>2)::bigint AS number
                    FROM jsonb_array_elements(quota.grants) AS g
                    WHERE (g->>0)::float8 + (g->>1)::float8 > now_s - longest_s
                ) AS e
                CROSS JOIN LATERAL (
                    SELECT coalesce(min((l->>1)::float8), longest_s) / 50 AS cell_s
                    FROM jsonb_array_elements(in_force || coalesce(quota.limits, '[]')) AS l
                    WHERE (l->>1)::float8 > now_s - e.at
                ) AS c
                GROUP BY c.cell_s, floor(e.at / c.cell_s)
            ) AS m;
        END IF;
    END IF;
    accepted := quota.accepted;
    learned := quota.learned;
    IF quota.blocked_until IS NOT NULL THEN
        paused_s := greatest(0, extract(epoch FROM quota.blocked_until - now_at));
    END IF;
    IF granted > 0 OR report IS NOT NULL THEN
        UPDATE {schema}.rate_limits AS l
        SET granted = quota.granted, answered = quota.answered, accepted = quota.accepted,
            grants = quota.grants, limits = quota.limits, learned = quota.learned,
            remaining = quota.remaining, advertised = quota.advertised, stated_at = quota.stated_at,
            resets_at = quota.resets_at,
            blocked_until = quota.blocked_until, probed_at = quota.probed_at
        WHERE l.key_hash = take_permits.key_hash;
    END IF;
END
$take$;
