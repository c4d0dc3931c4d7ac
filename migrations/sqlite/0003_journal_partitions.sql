-- In Postgres the journal gets partitions here. SQLite has none, and one file for one coordinator needs none.
SELECT 1;
