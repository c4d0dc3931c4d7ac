-- In Postgres indexes go here that new ones replace. SQLite got none of those and keeps its own: an entry costs less here.
SELECT 1;
