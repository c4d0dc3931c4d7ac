CREATE TABLE IF NOT EXISTS backstop_barrier (
    saga_id              TEXT   NOT NULL,
    step                 TEXT   NOT NULL,
    phase                TEXT   NOT NULL CHECK (phase IN ('action', 'compensation', 'closed')),
    state                TEXT   NOT NULL CHECK (state IN ('started', 'done', 'refused', 'barred', 'fenced')),
    epoch                BIGINT NOT NULL,
    clock                BIGINT NOT NULL,
    fingerprint          BYTEA,
    reply                BYTEA,
    created_unix_micros  BIGINT NOT NULL,
    finished_unix_micros BIGINT,
    PRIMARY KEY (saga_id, step, phase)
);
CREATE INDEX IF NOT EXISTS backstop_barrier_by_age ON backstop_barrier (finished_unix_micros);
