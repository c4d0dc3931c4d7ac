#!/bin/sh
# Starts the transfers of examples/transfer/transfers.csv over and over, one every PAUSE seconds, by turns on each of
# SERVERS. Some of them are made to be refused or to fail, so that dashboards and alerts have something to show: expect
# FailedBranches within some minutes, and an L1Failure with each round.
#
#   SERVERS    the coordinators' addresses, parted by spaces
#   TRANSFERS  the file
#   PAUSE      seconds between two transfers   2
#   ROUNDS     how often the file is gone through; 0: for ever
#   ALIVE      a file that is touched with each answer, for a health check
set -eu
: "${SERVERS:=http://127.0.0.1:7420}"
: "${TRANSFERS:=/usr/share/backstop/examples/transfer/transfers.csv}"
: "${PAUSE:=2}"
: "${ROUNDS:=0}"
: "${ALIVE:=/tmp/alive}"

# shellcheck disable=SC2086 # Words, on purpose.
set -- $SERVERS
round=0
while [ "$ROUNDS" -eq 0 ] || [ "$round" -lt "$ROUNDS" ]; do
    round=$((round + 1))
    # The columns before the first that may hold a comma in quotes: id, from, to, amount, currency, reference.
    tail -n +2 "$TRANSFERS" | while IFS=, read -r _ from to amount currency reference _; do
        server=$1
        shift
        set -- "$@" "$server"
        input="{\"from\": \"$from\", \"to\": \"$to\", \"amount_minor\": \"$amount\", \"currency\": \"$currency\",
                \"reference\": \"$reference\", \"note\": \"round $round\"}"
        code=0
        backstop --server "$server" saga start transfer --wait 30s --label source=load --input "$input" \
            </dev/null >/dev/null || code=$?
        # 0: done, 3: rolled back, 4: waits for a person. Anything else is no answer: say so and go on.
        case $code in
            0 | 3 | 4) touch "$ALIVE" ;;
            *) echo "round $round: $server: exit code $code" >&2 ;;
        esac
        sleep "$PAUSE"
    done
done
