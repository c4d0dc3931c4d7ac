"""A ledger that takes part in sagas: grpcio, sqlite3, its own proto, and barrier.py. Nothing of Backstop's.

Prints where it listens. Usage: ledger.py FILE [HOST:PORT]
"""

import sys
from concurrent import futures

import grpc
from grpc_reflection.v1alpha import reflection

from barrier import Barrier, Refused

protos, services = grpc.protos_and_services("ledger.proto")

BOOKS = """
CREATE TABLE IF NOT EXISTS account (id TEXT PRIMARY KEY, available_minor INTEGER NOT NULL CHECK (available_minor >= 0));
CREATE TABLE IF NOT EXISTS entry (
    id INTEGER PRIMARY KEY, transfer_id TEXT NOT NULL, account TEXT NOT NULL, amount_minor INTEGER NOT NULL
);
INSERT OR IGNORE INTO account VALUES ('alice', 1000000);
"""


class Ledger(services.LedgerServiceServicer):
    def __init__(self, path):
        self.barrier = Barrier(path)
        with self.barrier.transaction() as db:
            for statement in BOOKS.split(";"):
                db.execute(statement)
            db.execute("COMMIT")

    def Debit(self, request, context):
        return self.barrier.take(context, "Debit", request, protos.DebitReply, lambda db, _: debit(db, request))

    def ReverseDebit(self, request, context):
        def work(db, action_reply):
            return reverse(db, request, protos.DebitReply.FromString(action_reply))

        return self.barrier.take(context, "ReverseDebit", request, protos.ReverseDebitReply, work)

    def GetDebit(self, request, context):
        return self.barrier.query(context, protos.DebitReply)

    def GetAccount(self, request, context):
        with self.barrier.transaction() as db:
            row = db.execute("SELECT available_minor FROM account WHERE id = ?", (request.account,)).fetchone()
        if row is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such account")
        return protos.Account(account=request.account, available_minor=row[0])


def debit(db, request):
    taken = db.execute(
        "UPDATE account SET available_minor = available_minor - ?1 WHERE id = ?2 AND available_minor >= ?1"
        " RETURNING available_minor",
        (request.amount_minor, request.account),
    ).fetchone()
    if taken is None:
        raise Refused(grpc.StatusCode.FAILED_PRECONDITION, "insufficient funds", "INSUFFICIENT_FUNDS")
    entry = db.execute(
        "INSERT INTO entry (transfer_id, account, amount_minor) VALUES (?, ?, ?)",
        (request.transfer_id, request.account, -request.amount_minor),
    ).lastrowid
    return protos.DebitReply(entry_id=str(entry), available_minor=taken[0])


def reverse(db, request, done):
    account, amount = db.execute(
        "SELECT account, amount_minor FROM entry WHERE id = ?", (int(done.entry_id),)
    ).fetchone()
    db.execute("UPDATE account SET available_minor = available_minor - ? WHERE id = ?", (amount, account))
    db.execute(
        "INSERT INTO entry (transfer_id, account, amount_minor) VALUES (?, ?, ?)",
        (request.transfer_id, account, -amount),
    )
    return protos.ReverseDebitReply(reversed=True)


def serve(ledger, address):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    services.add_LedgerServiceServicer_to_server(ledger, server)
    names = (protos.DESCRIPTOR.services_by_name["LedgerService"].full_name, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    port = server.add_insecure_port(address)
    server.start()
    print(f"listening {address.rpartition(':')[0]}:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    serve(Ledger(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:0")
