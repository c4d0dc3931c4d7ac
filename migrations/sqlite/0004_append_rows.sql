-- In Postgres an append hands over arrays of rows from here on. SQLite has no arrays; its statements have a row of
-- parameters for each row.
SELECT 1;
