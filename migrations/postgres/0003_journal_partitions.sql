-- The journal in partitions by the birth of its sagas, so that a whole span of it can be dropped at once.
--
-- What is locked, and for how long: the verifying reads all events once (a minute for some ten gigabytes) under
-- a lock that only other changes of the schema and VACUUM wait for. Then the old table is locked whole for the
-- blink in which it gets another name and becomes a partition; its rows are not read again, because the
-- check proves what they are. Two seconds for that lock, or all is undone and tried again.
--
-- saga_event stays as a view with the columns that the table had. The program before this one writes through
-- it (born becomes 0, which is the legacy partition), and reads all partitions through it. A view and not the
-- partitioned table under the old name: that has one column more, and a session whose statements were
-- prepared before would be refused with "cached plan must not change result type" from here on.
SET LOCAL lock_timeout = '2s';

ALTER TABLE saga_event VALIDATE CONSTRAINT saga_event_is_legacy;

DROP VIEW saga_step;
ALTER TABLE saga_event RENAME TO journal_legacy;

CREATE TABLE journal (LIKE journal_legacy INCLUDING DEFAULTS INCLUDING COMMENTS) PARTITION BY RANGE (born);
-- No key on the parent: it would have to hold born, and so promise less, and the old table would need another
-- index. Each partition has its own key (saga_id, seq). That no seq is there twice across the two partitions
-- that one saga may use is held by the head row: whoever writes an event moves seq on in the same statement.
ALTER TABLE journal ATTACH PARTITION journal_legacy FOR VALUES FROM (0) TO (1);

-- What no span covers. Empty as long as a coordinator runs now and then; `backstop` makes the spans ahead.
CREATE TABLE journal_default (LIKE journal INCLUDING DEFAULTS INCLUDING COMMENTS, PRIMARY KEY (saga_id, seq));
CREATE INDEX journal_default_by_birth ON journal_default (born);
ALTER TABLE journal ATTACH PARTITION journal_default DEFAULT;

CREATE VIEW saga_event AS
SELECT saga_id, seq, kind, step, phase, attempt, status, evidence, effect, fin_code, tier, clock, epoch, at,
       elapsed_us, message, format, payload
FROM journal;

-- Spans whose partition was dropped. The head rows stay as they are: to mark each would write as much again as
-- dropping saves.
CREATE TABLE retired_span (
    from_us     bigint NOT NULL PRIMARY KEY,
    to_us       bigint NOT NULL,
    ended_until bigint NOT NULL,
    retired_at  bigint NOT NULL
);

-- As before; asked for one saga, it reads only the two partitions that can hold its events.
CREATE VIEW saga_step AS
SELECT saga.id AS saga_id,
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
FROM saga
CROSS JOIN LATERAL (
    SELECT DISTINCT ON (journal.step) journal.*
    FROM journal
    WHERE journal.saga_id = saga.id AND journal.born IN (0, saga.created_at)
      AND journal.step IS NOT NULL AND journal.kind <> 'rollback_decided'
    ORDER BY journal.step, journal.seq DESC
) AS event;

COMMENT ON TABLE journal IS 'The journal: append-only facts, the only truth. Rows are never updated. One partition for each span of births of sagas.';
COMMENT ON TABLE journal_legacy IS 'Events that a program before migration 3 wrote (born = 0).';
COMMENT ON TABLE journal_default IS 'Events of sagas whose birth no partition covers; should be empty.';
COMMENT ON VIEW saga_event IS 'The journal without its partitions: for people with psql, and for the program before migration 3.';
COMMENT ON VIEW saga_step IS 'Last event of each step of each saga. Steps to which nothing has happened yet are not in it.';
COMMENT ON TABLE retired_span IS 'Spans of births whose journals were dropped whole: sagas born in one, and ended early enough, are retired.';
COMMENT ON COLUMN retired_span.from_us IS 'First birth of the span, in microseconds since the Unix epoch.';
COMMENT ON COLUMN retired_span.to_us IS 'End of the span; not in it.';
COMMENT ON COLUMN retired_span.ended_until IS 'Its sagas had ended by then; one that ended later is none of those whose journals are gone.';
COMMENT ON COLUMN retired_span.retired_at IS 'When it was dropped.';
