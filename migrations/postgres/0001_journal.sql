-- The journal of all sagas, and the tables beside it.
--
-- Written for Postgres 14 and later, in what CockroachDB and YugabyteDB also speak.
--
-- Why it looks like this:
--   * Instants are bigint microseconds since the Unix epoch, so that no session's time zone matters.
--   * Names and ids collate by byte ("C"): pages and comparisons are the same in every database.
--   * Every append changes seq and updated_at of a saga's head row, so no index touches these: the
--     update stays on its page (HOT), for which fillfactor leaves room. owner, wake_at, state and
--     fin_code change rarely; indexes on them are partial and hold only the few rows that matter.
--   * No foreign keys: each would lock the head row once more for every event. The one statement that
--     writes events writes their head row too.
--   * Text from outside may hold NUL, which Postgres text may not: it is written as chr(26) || '0', and
--     chr(26) itself as chr(26) || '1'.

CREATE TABLE definition (
    name        text COLLATE "C" NOT NULL,
    revision    bigint           NOT NULL,
    fingerprint bytea            NOT NULL,
    spec        text             NOT NULL,
    descriptors bytea            NOT NULL,
    created_at  bigint           NOT NULL,
    PRIMARY KEY (name, revision)
);

CREATE TABLE participant (
    name                text COLLATE "C" NOT NULL PRIMARY KEY,
    endpoints           text             NOT NULL,
    deduplicates_by_key boolean          NOT NULL,
    rollback_listener   boolean          NOT NULL,
    in_flight_max       bigint           NOT NULL,
    keepalive_us        bigint           NOT NULL,
    updated_at          bigint           NOT NULL
);

CREATE TABLE coordinator (
    id         text COLLATE "C" NOT NULL PRIMARY KEY,
    address    text             NOT NULL,
    started_at bigint           NOT NULL,
    expires_at bigint           NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE saga (
    id          text COLLATE "C" NOT NULL PRIMARY KEY,
    definition  text COLLATE "C" NOT NULL,
    revision    bigint           NOT NULL,
    state       text             NOT NULL,
    seq         bigint           NOT NULL,
    epoch       bigint           NOT NULL,
    owner       text COLLATE "C",
    wake_at     bigint,
    fin_code    text,
    labels      jsonb            NOT NULL,
    fingerprint bytea            NOT NULL,
    created_at  bigint           NOT NULL,
    updated_at  bigint           NOT NULL,
    ended_at    bigint
) WITH (fillfactor = 80);

-- Lists, newest first. A saga's definition and creation never change.
CREATE INDEX saga_by_age ON saga (created_at DESC, id DESC);
CREATE INDEX saga_by_definition ON saga (definition, created_at DESC, id DESC);
CREATE INDEX saga_by_fin_code ON saga (fin_code, created_at DESC, id DESC) WHERE fin_code IS NOT NULL;
CREATE INDEX saga_waiting_for_people ON saga (created_at DESC, id DESC) WHERE state = 'NEEDS_INTERVENTION';
-- Recovery: whose sagas there are, and which parked ones want their turn.
CREATE INDEX saga_by_owner ON saga (owner) WHERE owner IS NOT NULL;
CREATE INDEX saga_by_wake ON saga (wake_at) WHERE owner IS NULL AND wake_at IS NOT NULL;

CREATE TABLE saga_event (
    saga_id    text COLLATE "C" NOT NULL,
    seq        bigint           NOT NULL,
    kind       text             NOT NULL,
    step       text COLLATE "C",
    phase      text,
    attempt    bigint,
    status     text,
    evidence   text,
    effect     text,
    fin_code   text,
    tier       text,
    clock      bigint           NOT NULL,
    epoch      bigint           NOT NULL,
    at         bigint           NOT NULL,
    elapsed_us bigint,
    message    text,
    format     smallint         NOT NULL,
    payload    bytea            NOT NULL,
    PRIMARY KEY (saga_id, seq)
);

-- What happened last to each step, for people with psql. It tells events, not states: what follows from
-- them (a branch that waits, runs or was skipped has no event of its own) are rules, and rules are not in
-- SQL. `backstop saga show` applies them.
CREATE VIEW saga_step AS
SELECT event.saga_id,
       event.step,
       event.kind AS last_event,
       event.phase,
       event.attempt,
       event.status,
       event.effect,
       event.fin_code,
       event.tier,
       event.message,
       event.seq,
       event.at,
       saga.state AS saga_state
FROM (
    SELECT saga_id, step, max(seq) AS seq
    FROM saga_event
    WHERE step IS NOT NULL AND kind <> 'rollback_decided'
    GROUP BY saga_id, step
) AS newest
JOIN saga_event AS event ON event.saga_id = newest.saga_id AND event.seq = newest.seq
JOIN saga ON saga.id = event.saga_id;

COMMENT ON TABLE definition IS 'Revisions of definitions. Never changed, never deleted while a saga may run one.';
COMMENT ON COLUMN definition.fingerprint IS 'SHA-256 over content and descriptors.';
COMMENT ON COLUMN definition.spec IS 'What the author wrote, as versioned JSON. Text, not jsonb, so that it comes back as it went in.';
COMMENT ON COLUMN definition.descriptors IS 'Message types of its calls: an encoded google.protobuf.FileDescriptorSet.';
COMMENT ON COLUMN definition.created_at IS 'When it was registered, in microseconds since the Unix epoch.';

COMMENT ON TABLE participant IS 'Services that sagas call, as registered last.';
COMMENT ON COLUMN participant.endpoints IS 'JSON array of http(s)://host:port.';
COMMENT ON COLUMN participant.deduplicates_by_key IS 'It gives every attempt with one idempotency key the same answer.';
COMMENT ON COLUMN participant.rollback_listener IS 'It wants the rollback signal.';
COMMENT ON COLUMN participant.in_flight_max IS 'Most calls in flight to it from one coordinator.';
COMMENT ON COLUMN participant.keepalive_us IS 'Interval of HTTP/2 pings while calls are in flight, in microseconds.';

COMMENT ON TABLE coordinator IS 'One row per coordinator process: its lease, judged by this database''s clock.';
COMMENT ON COLUMN coordinator.address IS 'Where its API listens, for people.';
COMMENT ON COLUMN coordinator.expires_at IS 'When the lease runs out unless renewed, in microseconds since the Unix epoch.';

COMMENT ON TABLE saga IS 'Head row of each saga, derived from its journal: what lists and recovery filter on. If the two differ, the journal is right.';
COMMENT ON COLUMN saga.state IS 'RUNNING, ROLLING_BACK, NEEDS_INTERVENTION, SUCCEEDED or ROLLED_BACK; the last two are final.';
COMMENT ON COLUMN saga.seq IS 'Seq of its last event. A writer must have known the one before to write.';
COMMENT ON COLUMN saga.epoch IS 'Number of the present owner''s tenure; grows with every takeover.';
COMMENT ON COLUMN saga.owner IS 'The coordinator that drives it; null if it is over, parked, or waits for a person.';
COMMENT ON COLUMN saga.wake_at IS 'When it wants its next turn if nobody drives it, in microseconds since the Unix epoch.';
COMMENT ON COLUMN saga.fin_code IS 'FIN code of why it rolls back.';
COMMENT ON COLUMN saga.labels IS 'The client''s labels: a JSON object of strings.';
COMMENT ON COLUMN saga.fingerprint IS 'SHA-256 of the request that started it.';
COMMENT ON COLUMN saga.created_at IS 'When it started, in microseconds since the Unix epoch.';
COMMENT ON COLUMN saga.updated_at IS 'When its last event happened, in microseconds since the Unix epoch.';
COMMENT ON COLUMN saga.ended_at IS 'When it ended, in microseconds since the Unix epoch.';

COMMENT ON TABLE saga_event IS 'The journal: append-only facts, the only truth. Rows are never updated.';
COMMENT ON COLUMN saga_event.seq IS 'Its place in the saga''s journal, from 1 without a gap.';
COMMENT ON COLUMN saga_event.kind IS 'What happened.';
COMMENT ON COLUMN saga_event.step IS 'The step concerned; on rollback_decided the step that is the cause.';
COMMENT ON COLUMN saga_event.phase IS 'Which of the step''s calls: action, query or compensation.';
COMMENT ON COLUMN saga_event.attempt IS 'Number of the attempt, from 1; on signal_reported how often it was tried.';
COMMENT ON COLUMN saga_event.status IS 'gRPC status under which a failure is recorded.';
COMMENT ON COLUMN saga_event.evidence IS 'Who says so: participant_said, or why there is no answer of theirs.';
COMMENT ON COLUMN saga_event.effect IS 'What the failed attempt did to the participant''s books: none or in_doubt.';
COMMENT ON COLUMN saga_event.fin_code IS 'Public code of the failure.';
COMMENT ON COLUMN saga_event.tier IS 'How loud: L1 block, L2 degrade, L3 prompt.';
COMMENT ON COLUMN saga_event.clock IS 'Lamport clock of the event.';
COMMENT ON COLUMN saga_event.epoch IS 'Tenure of the coordinator that wrote it.';
COMMENT ON COLUMN saga_event.at IS 'When, in microseconds since the Unix epoch.';
COMMENT ON COLUMN saga_event.elapsed_us IS 'From dispatch to answer, in microseconds.';
COMMENT ON COLUMN saga_event.message IS 'What was said, bounded: of a failure, of a signal that failed, or an operator''s reason.';
COMMENT ON COLUMN saga_event.format IS 'Version of kind and payload.';
COMMENT ON COLUMN saga_event.payload IS 'What the columns do not hold, in a private encoding. May hold customers'' data.';

COMMENT ON VIEW saga_step IS 'Last event of each step of each saga. Steps to which nothing has happened yet are not in it.';
