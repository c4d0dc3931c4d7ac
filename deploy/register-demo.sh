#!/bin/sh
# Tells the coordinator of docker-compose.yml about the demo's services and the transfer between them.
# Everything here is idempotent: it may run again at any time.
set -eu
: "${BACKSTOP_SERVER:=http://127.0.0.1:7420}"
export BACKSTOP_SERVER

backstop participant register ledger_a --endpoint http://127.0.0.1:7431 --deduplicates-by-key --rollback-listener
backstop participant register ledger_b --endpoint http://127.0.0.1:7432 --deduplicates-by-key --rollback-listener
backstop participant register risk --endpoint http://127.0.0.1:7433
backstop participant register audit --endpoint http://127.0.0.1:7434 --deduplicates-by-key
backstop definition register /usr/share/backstop/examples/transfer/transfer.yaml
