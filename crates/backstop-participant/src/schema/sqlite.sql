CREATE TABLE IF NOT EXISTS backstop_barrier (
    saga_id              TEXT    NOT NULL,
    step                 TEXT    NOT NULL,
    phase                TEXT    NOT NULL CHECK (phase IN ('action', 'compensation', 'closed')),
    state                TEXT    NOT NULL CHECK (state IN ('started', 'done', 'refused', 'barred', 'fenced')),
    epoch                INTEGER NOT NULL,
    clock                INTEGER NOT NULL,
    fingerprint          BLOB,
    reply                BLOB,
    created_unix_micros  INTEGER NOT NULL,
    finished_unix_micros INTEGER,
    PRIMARY KEY (saga_id, step, phase)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS backstop_barrier_by_age ON backstop_barrier (finished_unix_micros);
