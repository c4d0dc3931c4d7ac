-- What several coordinators, retirement and quarantine need on the tables that are there.
--
-- The program before this one runs on beside it: every new column has a default, and its statements name the
-- columns that they write.
--
-- What is locked, and for how long:
--   * saga against writing while two partial indexes are built, then whole while a third is, about a second for each
--     million sagas. At a larger number make saga_by_end and saga_unfinished by hand before, with CREATE INDEX
--     CONCURRENTLY; what is there already is not made again.
--   * coordinator, saga and saga_event whole, for the blink in which columns are added: defaults that are
--     constants do not rewrite a table, and the check is not verified here.
-- Whoever waits for a lock keeps everybody behind it waiting: after two seconds this gives up, and is tried
-- again.
SET LOCAL lock_timeout = '2s';

-- ended_at is set once, by a saga's last append, and retired once after that; created_at never changes. So
-- these three cost a running saga's updates nothing: they stay on their page (HOT).
--   * Ended and still with a journal, by birth: what retirement looks for.
--   * Ended, by end: whose head row's time has come.
--   * Unfinished, by birth: what keeps a span of the journal from being dropped; the checks' way to them.
CREATE INDEX IF NOT EXISTS saga_by_end ON saga (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS saga_unfinished ON saga (created_at) WHERE ended_at IS NULL;
ALTER TABLE saga ADD COLUMN quarantine text, ADD COLUMN retired boolean NOT NULL DEFAULT false;
CREATE INDEX saga_unretired ON saga (created_at) WHERE ended_at IS NOT NULL AND NOT retired;

ALTER TABLE coordinator ADD COLUMN draining boolean NOT NULL DEFAULT false;

-- The table of all events becomes a partition of the journal (0003). That every row of it belongs there is
-- promised here for new rows and verified by the next migration, which holds no lock that matters meanwhile.
ALTER TABLE saga_event ADD COLUMN born bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT saga_event_is_legacy CHECK (born = 0::bigint) NOT VALID;

-- saga_event stays as a view with the columns that the table had. The program before this one writes and reads
-- through it (born becomes 0). Under the old name the table would have one column more, and a session whose
-- statements were prepared before would be refused with "cached plan must not change result type" from here on.
ALTER TABLE saga_event RENAME TO journal_legacy;
CREATE VIEW saga_event AS
SELECT saga_id, seq, kind, step, phase, attempt, status, evidence, effect, fin_code, tier, clock, epoch, at,
       elapsed_us, message, format, payload
FROM journal_legacy;

COMMENT ON COLUMN saga.quarantine IS 'Why it is set aside, if its journal cannot be followed.';
COMMENT ON COLUMN saga.retired IS 'Its journal has been deleted row by row; see also retired_span. Only this row is left of it.';
COMMENT ON COLUMN coordinator.draining IS 'It is about to leave and takes on nothing more.';
COMMENT ON COLUMN journal_legacy.born IS 'created_at of its saga, which decides the partition; 0 in what a program before migration 3 wrote.';

-- Which programs may start on this schema: those that know this migration or a later one. A migration after which
-- programs before it must not start any more sets it higher; one that only adds leaves it as it is, so that during
-- a rolling upgrade a coordinator of the version before can also be restarted.
CREATE TABLE schema_compatibility (
    oldest_migration bigint NOT NULL
);
INSERT INTO schema_compatibility (oldest_migration) VALUES (3);
COMMENT ON TABLE schema_compatibility IS 'One row: the newest migration that a program must know to start on this schema.';
