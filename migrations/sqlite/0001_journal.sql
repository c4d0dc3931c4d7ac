-- The journal of all sagas, and the tables beside it. The columns and their meaning are those of
-- migrations/postgres/0001_journal.sql, where each is explained.
--
-- Differences: STRICT tables keep SQLite from storing a text where a number belongs; labels are JSON text;
-- events refer to their head row by a foreign key, which costs little here.

CREATE TABLE definition (
    name        TEXT    NOT NULL,
    revision    INTEGER NOT NULL,
    fingerprint BLOB    NOT NULL,
    spec        TEXT    NOT NULL,
    descriptors BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (name, revision)
) STRICT;

CREATE TABLE participant (
    name                TEXT    NOT NULL PRIMARY KEY,
    endpoints           TEXT    NOT NULL,
    deduplicates_by_key INTEGER NOT NULL,
    rollback_listener   INTEGER NOT NULL,
    in_flight_max       INTEGER NOT NULL,
    keepalive_us        INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL
) STRICT;

CREATE TABLE coordinator (
    id         TEXT    NOT NULL PRIMARY KEY,
    address    TEXT    NOT NULL,
    started_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE saga (
    id          TEXT    NOT NULL PRIMARY KEY,
    definition  TEXT    NOT NULL,
    revision    INTEGER NOT NULL,
    state       TEXT    NOT NULL,
    seq         INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    owner       TEXT,
    wake_at     INTEGER,
    fin_code    TEXT,
    labels      TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    ended_at    INTEGER
) STRICT;

-- Lists, newest first.
CREATE INDEX saga_by_age ON saga (created_at DESC, id DESC);
CREATE INDEX saga_by_definition ON saga (definition, created_at DESC, id DESC);
CREATE INDEX saga_by_fin_code ON saga (fin_code, created_at DESC, id DESC) WHERE fin_code IS NOT NULL;
CREATE INDEX saga_waiting_for_people ON saga (created_at DESC, id DESC) WHERE state = 'NEEDS_INTERVENTION';
-- Recovery: whose sagas there are, and which parked ones want their turn.
CREATE INDEX saga_by_owner ON saga (owner) WHERE owner IS NOT NULL;
CREATE INDEX saga_by_wake ON saga (wake_at) WHERE owner IS NULL AND wake_at IS NOT NULL;

CREATE TABLE saga_event (
    saga_id    TEXT    NOT NULL REFERENCES saga (id),
    seq        INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    step       TEXT,
    phase      TEXT,
    attempt    INTEGER,
    status     TEXT,
    evidence   TEXT,
    effect     TEXT,
    fin_code   TEXT,
    tier       TEXT,
    clock      INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    elapsed_us INTEGER,
    message    TEXT,
    format     INTEGER NOT NULL,
    payload    BLOB    NOT NULL,
    PRIMARY KEY (saga_id, seq)
) STRICT;

-- What happened last to each step, for people with sqlite3. It tells events, not states: what follows
-- from them (a branch that waits, runs or was skipped has no event of its own) are rules, and rules are
-- not in SQL. `backstop saga show` applies them.
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
