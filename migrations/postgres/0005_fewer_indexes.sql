-- The indexes that those of the migration before replace go, and one that nothing needs any more.
--
-- By itself, so that a lock that is not to be had undoes nothing that was built.
--
-- The program before this one runs on beside it: what it asks finds other indexes that serve as well, but for deleting
-- the head rows of sagas that ended long ago, which reads more until it has gone.
--
-- What is locked, and for how long: saga whole, for the blink in which three indexes go. For that it waits for everybody
-- who reads or writes saga, and everybody else waits behind it: after half a second this gives up, and is tried again. A
-- reader that takes long (pg_dump) outlasts all tries: run `backstop migrate` again when it has ended, or drop the three by
-- hand before, with DROP INDEX CONCURRENTLY, which keeps nobody waiting; what is gone already is not missed.
SET LOCAL lock_timeout = '500ms';

-- What a CREATE INDEX CONCURRENTLY leaves when it fails has the name of an index and is none.
DO $$
DECLARE
    name    text;
    columns text;
BEGIN
    FOR name, columns IN VALUES ('saga_by_birth', 'created_at'), ('saga_of_definition', 'definition, created_at') LOOP
        IF NOT EXISTS (SELECT 1 FROM pg_index
                       WHERE indexrelid = to_regclass(name) AND indrelid = 'saga'::regclass AND indisvalid) THEN
            RAISE EXCEPTION 'the index % on saga is not there or not valid: if no CREATE INDEX CONCURRENTLY is at it any '
                'more, run "DROP INDEX IF EXISTS %" and "CREATE INDEX CONCURRENTLY % ON saga (%)", and migrate again',
                name, name, name, columns;
        END IF;
    END LOOP;
END $$;

DROP INDEX IF EXISTS saga_by_age;
DROP INDEX IF EXISTS saga_by_definition;
-- Whose head row's time has come is found by birth: what was born long ago and is still there is over, or among the few
-- that live long.
DROP INDEX IF EXISTS saga_by_end;
