#!/bin/sh
# Runs the conformance suite against one of the ledgers here: check.sh HOST:PORT
set -eu
exec "${BACKSTOP:-backstop}" participant check "http://$1" \
  --action example.ledger.v1.LedgerService/Debit \
  --action-request '{"transfer_id": "${saga.id}", "account": "alice", "amount_minor": "7"}' \
  --other-request '{"transfer_id": "${saga.id}", "account": "alice", "amount_minor": "8"}' \
  --refused-request '{"transfer_id": "${saga.id}", "account": "alice", "amount_minor": "999999999"}' \
  --compensation example.ledger.v1.LedgerService/ReverseDebit \
  --compensation-request '{"transfer_id": "${saga.id}"}' \
  --query example.ledger.v1.LedgerService/GetDebit \
  --query-request '{"transfer_id": "${saga.id}"}' \
  --read example.ledger.v1.LedgerService/GetAccount \
  --read-request '{"account": "alice"}' \
  --read-path available_minor
