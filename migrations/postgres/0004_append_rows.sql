-- What an append costs the server: fewer values to take apart, and fewer and shorter index entries.
--
-- The program before this one runs on beside it: its statements name what they write, and find their indexes. Those that
-- nobody needs any more go with the next migration.
--
-- What is locked, and for how long: saga against writing while two indexes are built, some two seconds for each million
-- sagas. At a larger number make saga_by_birth and saga_of_definition by hand before, with CREATE INDEX CONCURRENTLY; what
-- is there already is not made again. Readers of saga are not waited for. Whoever waits for a lock keeps everybody behind
-- it waiting: after two seconds this gives up, before it has built anything, and is tried again.
SET LOCAL lock_timeout = '2s';

-- An append hands over two arrays of rows. One array for each column makes the server call, and buffer the values of, a
-- function for each: 34 of them cost more than what they wrote (measured with one saga in a statement: 390 us of
-- processor, and 250 so; with 36 sagas 51, and 40 so, for each).
-- No column may be added to a type of these while a program that knows it runs: a new form of rows is a new type.
CREATE TYPE append_head AS (
    id          text,
    expected    bigint,
    definition  text,
    revision    bigint,
    state       text,
    seq         bigint,
    epoch       bigint,
    owner       text,
    wake_at     bigint,
    fin_code    text,
    labels      text,
    fingerprint bytea,
    created_at  bigint,
    updated_at  bigint,
    ended_at    bigint
);
CREATE TYPE append_event AS (
    saga_id    text,
    seq        bigint,
    kind       text,
    step       text,
    phase      text,
    attempt    bigint,
    status     text,
    evidence   text,
    effect     text,
    fin_code   text,
    tier       text,
    clock      bigint,
    epoch      bigint,
    at         bigint,
    elapsed_us bigint,
    message    text,
    format     smallint,
    payload    bytea,
    born       bigint
);

-- The append that ends a saga makes an entry in every index that holds it. Ids in these two were half of what they
-- wrote, and only break ties between sagas of the same microsecond, which sorting those few does as well.
CREATE INDEX IF NOT EXISTS saga_by_birth ON saga (created_at);
CREATE INDEX IF NOT EXISTS saga_of_definition ON saga (definition, created_at);

COMMENT ON TYPE append_head IS 'A head row, and the seq that its writer expects to find, as a statement is given it.';
COMMENT ON TYPE append_event IS 'A row of the journal, as a statement is given it.';
