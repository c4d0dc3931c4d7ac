#!/bin/sh
# Tells the coordinators of docker-compose.yml about the demo's services and the transfer between them. Everything here
# is idempotent: it may run again at any time.
set -eu
: "${BACKSTOP_SERVER:=http://127.0.0.1:7420}"
: "${DEMO:=/usr/share/backstop/examples/transfer}"
: "${LEDGER_A:=http://127.0.0.1:7431}"
: "${LEDGER_B:=http://127.0.0.1:7432}"
: "${RISK:=http://127.0.0.1:7433}"
: "${AUDIT:=http://127.0.0.1:7434}"
export BACKSTOP_SERVER

backstop participant register ledger_a --endpoint "$LEDGER_A" --deduplicates-by-key --rollback-listener
backstop participant register ledger_b --endpoint "$LEDGER_B" --deduplicates-by-key --rollback-listener
backstop participant register risk --endpoint "$RISK"
backstop participant register audit --endpoint "$AUDIT" --deduplicates-by-key
backstop definition register "$DEMO/transfer.yaml"
