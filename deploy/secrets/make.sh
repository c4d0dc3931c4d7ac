#!/bin/sh
# Makes the passwords that docker-compose.yml reads, unless they are there: random, and never shown.
set -eu
cd "$(dirname "$0")"
mkdir -p values
chmod 0700 values
for name in postgres_password grafana_password; do
    [ -s "values/$name" ] && continue
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"values/$name"
    chmod 0644 "values/$name"
done
