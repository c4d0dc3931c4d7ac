-- What retirement and quarantine need. The columns and their meaning are those of
-- migrations/postgres/0002_retirement.sql, where each is explained; the journal is one table here.

ALTER TABLE saga ADD COLUMN quarantine TEXT;
ALTER TABLE saga ADD COLUMN retired INTEGER NOT NULL DEFAULT 0;
CREATE INDEX saga_unretired ON saga (created_at) WHERE ended_at IS NOT NULL AND NOT retired;
CREATE INDEX saga_by_end ON saga (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX saga_unfinished ON saga (created_at) WHERE ended_at IS NULL;

ALTER TABLE coordinator ADD COLUMN draining INTEGER NOT NULL DEFAULT 0;
