-- Every table of the crawler, made when it is missing. {schema} is replaced by the quoted name of
-- DB_SCHEMA. store.schema compares the columns of an existing table with these.

-- name: events
-- One row per event id.
CREATE TABLE {schema}.events (
    id text PRIMARY KEY,
    session_id text,
    user_id text,
    type text,
    name text,
    properties jsonb,
    "timestamp" timestamptz,
    session jsonb,
    extra jsonb,
    ingested_at timestamptz DEFAULT now()
);

-- name: checkpoint
-- The ledger: a row per committed range, written in the transaction of its rows and never updated.
-- A pass above 0 covers the set; one below 0 checks other ranges.
CREATE TABLE {schema}.checkpoint (
    pass integer NOT NULL,
    first_offset bigint NOT NULL CHECK (first_offset >= 0),
    requested integer NOT NULL CHECK (requested > 0),
    received integer NOT NULL CHECK (received > 0),
    inserted integer NOT NULL CHECK (inserted >= 0),
    duplicates integer NOT NULL CHECK (duplicates >= 0),
    changed integer NOT NULL CHECK (changed >= 0),
    rejected integer NOT NULL CHECK (rejected >= 0),
    first_id text,
    last_id text,
    run_id bigint NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT now(),
    next_cursor text,
    cursor_expires_at timestamptz,
    before_id text,
    -- Ids that came more than once in this response; NULL in rows of version 0.1.
    repeated integer,
    -- The API's total at that time.
    total bigint,
    -- In this order and with `received` the key yields gaps and coverage without a sort.
    PRIMARY KEY (first_offset, pass) INCLUDE (received),
    CHECK (received = inserted + duplicates + rejected)
);
CREATE INDEX ON {schema}.checkpoint (received);

-- name: seams
-- Seams that are proved without being exact, by the range after them (docs/proof.md). A seam that
-- is neither exact nor in this table is in doubt.
CREATE TABLE {schema}.seams (
    pass integer NOT NULL,
    first_offset bigint NOT NULL,
    kind text NOT NULL,
    depth integer NOT NULL DEFAULT 0,
    readings integer NOT NULL DEFAULT 0,
    run_id bigint,
    joined_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pass, first_offset, kind)
);

-- name: proofs
-- The closed form of each pass that was proved complete.
CREATE TABLE {schema}.proofs (
    pass integer PRIMARY KEY,
    head_id text NOT NULL,
    tail_id text NOT NULL,
    count bigint NOT NULL,
    total bigint,
    short bigint NOT NULL DEFAULT 0,
    method text NOT NULL,
    run_id bigint,
    proved_at timestamptz NOT NULL DEFAULT now()
);

-- name: rejected_events
-- One row per event that can't be stored, by its absolute position (page offset + index).
CREATE TABLE {schema}.rejected_events (
    "position" bigint PRIMARY KEY,
    page_offset bigint NOT NULL,
    reason text NOT NULL,
    raw bytea NOT NULL,
    rejected_at timestamptz NOT NULL DEFAULT now()
);

-- name: source
-- One row: the API that the events of this schema come from, and what was learned of it.
CREATE TABLE {schema}.source (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    api_base_url text NOT NULL,
    pagination text NOT NULL,
    page_limit integer,
    total bigint,
    overlap integer NOT NULL DEFAULT 1,
    salt text NOT NULL DEFAULT gen_random_uuid()::text,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- name: rate_limits
-- What was learned of the limits of one key, and what all processes with it have sent. A salted
-- hash is stored, never the key.
CREATE TABLE {schema}.rate_limits (
    key_hash text PRIMARY KEY,
    learnt jsonb NOT NULL,
    paused_until timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- The rest is take_permits': requests granted, answered and accepted, of all processes, …
    granted bigint NOT NULL DEFAULT 0,
    answered bigint NOT NULL DEFAULT 0,
    accepted bigint NOT NULL DEFAULT 0,
    -- … the last grants as [epoch s, latency s, number], the limits that were stated with them, and
    -- the learned limit, as [requests, window in s],
    grants jsonb NOT NULL DEFAULT '[]',
    limits jsonb,
    learned jsonb,
    -- what the API's last answer said is left, when it was reported, until when it holds, and of
    -- which limit, if its window is known,
    remaining integer,
    stated_at timestamptz,
    resets_at timestamptz,
    advertised jsonb,
    -- the end of a refusal's pause, NULL once a request has succeeded, and when a probe was sent.
    blocked_until timestamptz,
    probed_at timestamptz
);

-- name: leases
-- Who fetches what: a row per chunk of pages, and one for the proof (docs/scale.md). A page is
-- committed only while its lease has the epoch at which it was claimed.
CREATE TABLE {schema}.leases (
    id bigint GENERATED ALWAYS AS IDENTITY,
    kind text NOT NULL CHECK (kind IN ('proof', 'chunk')),
    pass integer NOT NULL,
    -- The chunk's offsets, and where the range before it may begin.
    first bigint NOT NULL,
    stop bigint NOT NULL,
    floor bigint NOT NULL DEFAULT 0,
    shift bigint NOT NULL DEFAULT 0,
    page_size integer,
    epoch bigint NOT NULL DEFAULT 0,
    -- A random number of the process, for as long as it runs.
    owner uuid,
    run_id bigint,
    expires_at timestamptz,
    -- Of the proof: the settings that all processes must share, and the last verdict.
    settings jsonb,
    decided bigint,
    decided_at timestamptz,
    verdict jsonb,
    PRIMARY KEY (id),
    UNIQUE (kind, pass, first)
);

-- name: crawl_runs
-- One row per run. heartbeat_at is by the database's clock: any machine can tell a dead run.
CREATE TABLE {schema}.crawl_runs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host text NOT NULL,
    pid integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    finish_reason text,
    stats jsonb NOT NULL DEFAULT '{}'
);

-- name: crawl_samples
-- Figures of a run over time.
CREATE TABLE {schema}.crawl_samples (
    run_id bigint NOT NULL,
    sampled_at timestamptz NOT NULL DEFAULT now(),
    figures jsonb NOT NULL,
    PRIMARY KEY (run_id, sampled_at)
);
