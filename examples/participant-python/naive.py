"""The same ledger without a barrier, as it is first written: it does what it is asked, each time it is asked.

It is here to fail: `backstop participant check` says what it does twice.
Prints where it listens. Usage: naive.py [HOST:PORT]
"""

import sys
import threading

import grpc

from ledger import protos, serve, services


class Naive(services.LedgerServiceServicer):
    def __init__(self):
        self.lock = threading.Lock()
        self.available = {"alice": 1_000_000}
        self.debits = {}
        self.entries = 0

    def Debit(self, request, context):
        with self.lock:
            if self.available.get(request.account, 0) < request.amount_minor:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "insufficient funds")
            self.available[request.account] -= request.amount_minor
            self.debits[request.transfer_id] = request
            self.entries += 1
            return protos.DebitReply(
                entry_id=str(self.entries), available_minor=self.available[request.account]
            )

    def ReverseDebit(self, request, context):
        with self.lock:
            debit = self.debits.get(request.transfer_id)
            if debit is None:
                context.abort(grpc.StatusCode.NOT_FOUND, "no such debit")
            self.available[debit.account] += debit.amount_minor
            return protos.ReverseDebitReply(reversed=True)

    def GetDebit(self, request, context):
        with self.lock:
            if request.transfer_id not in self.debits:
                context.abort(grpc.StatusCode.NOT_FOUND, "no such debit")
            return protos.DebitReply(entry_id="?", available_minor=self.available["alice"])

    def GetAccount(self, request, context):
        with self.lock:
            return protos.Account(account=request.account, available_minor=self.available[request.account])


if __name__ == "__main__":
    serve(Naive(), sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:0")
