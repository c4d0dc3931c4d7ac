"""The barrier of docs/participant-contract.md for sqlite3: each call once, in the transaction of its own work.

Written from that page alone. It needs no code and no types of Backstop's. The SQL is the page's, word for word.
"""

import contextlib
import dataclasses
import hashlib
import sqlite3
import time

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

DOMAIN = "example.ledger"
MESSAGE_BYTES_MAX = 2048
# What Backstop takes for the answer to every attempt; an action's status with one of these is kept.
SPEAKS_FOR_ITS_KEY = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.OUT_OF_RANGE,
}

SCHEMA = """
CREATE TABLE IF NOT EXISTS backstop_barrier (
    saga_id              TEXT    NOT NULL,
    step                 TEXT    NOT NULL,
    phase                TEXT    NOT NULL CHECK (phase IN ('action', 'compensation', 'closed')),
    state                TEXT    NOT NULL CHECK (state IN ('started', 'done', 'refused', 'barred', 'fenced')),
    epoch                INTEGER NOT NULL,
    clock                INTEGER NOT NULL,
    fingerprint          BLOB,
    reply                BLOB,
    created_unix_micros  INTEGER NOT NULL,
    finished_unix_micros INTEGER,
    PRIMARY KEY (saga_id, step, phase)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS backstop_barrier_by_age ON backstop_barrier (finished_unix_micros);
"""
CLAIM = """
INSERT INTO backstop_barrier
    (saga_id, step, phase, state, epoch, clock, fingerprint, created_unix_micros, finished_unix_micros)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (saga_id, step, phase) DO NOTHING
"""
PASS_FENCE = """
UPDATE backstop_barrier
SET state = 'started', epoch = $3, clock = $4, fingerprint = $5, finished_unix_micros = NULL
WHERE saga_id = $1 AND step = $2 AND phase = 'action' AND state = 'fenced' AND clock < $4
"""
REFENCE = """
UPDATE backstop_barrier
SET state = $3, clock = CASE WHEN clock < $4 THEN $4 ELSE clock END, finished_unix_micros = $5
WHERE saga_id = $1 AND step = $2 AND phase = 'action' AND state = 'fenced'
"""
ROWS = """
SELECT phase, state, fingerprint, reply FROM backstop_barrier
WHERE saga_id = $1 AND step = $2
"""
CLOSED = """
SELECT COUNT(*) FROM backstop_barrier
WHERE saga_id = $1 AND phase <> 'action'
    AND (epoch > $3 OR phase = 'compensation' AND step = $2)
"""
FINISH = """
UPDATE backstop_barrier SET state = $4, reply = $5, finished_unix_micros = $6
WHERE saga_id = $1 AND step = $2 AND phase = $3 AND state = 'started'
"""
MARK = "SAVEPOINT backstop_work"
ROLL_BACK_WORK = "ROLLBACK TO SAVEPOINT backstop_work"


class Refused(Exception):
    """A business refusal: what the work wrote is rolled back, and every attempt gets this status."""

    def __init__(self, code, message, reason, **metadata):
        super().__init__(message)
        self.status = status(code, message, reason, **metadata)


def status(code, message, reason, **metadata):
    """A google.rpc.Status with an ErrorInfo."""
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata))
    cut = message.encode()[:MESSAGE_BYTES_MAX].decode(errors="ignore")
    return status_pb2.Status(code=code.value[0], message=cut, details=[info])


def no_effect(code, message, reason):
    return status(code, message, reason, effect="none")


@dataclasses.dataclass(frozen=True)
class Call:
    """A call's metadata."""

    saga_id: str
    step: str
    phase: str
    epoch: int
    clock: int

    @classmethod
    def of(cls, context):
        """The call that a servicer's context is in; None for a plain caller."""
        metadata = dict(context.invocation_metadata())
        if not any(key.startswith("backstop-") for key in metadata):
            return None
        try:
            call = cls(
                saga_id=metadata["backstop-saga-id"],
                step=metadata["backstop-step"],
                phase=metadata["backstop-phase"],
                epoch=int(metadata["backstop-epoch"]),
                clock=int(metadata["backstop-clock"]),
            )
            key = metadata["idempotency-key"]
        except (KeyError, ValueError) as fault:
            answer(context, no_effect(grpc.StatusCode.INVALID_ARGUMENT, f"metadata: {fault}", "BAD_METADATA"))
        if key != f"{call.saga_id}/{call.step}/{call.phase}":
            answer(context, no_effect(grpc.StatusCode.INVALID_ARGUMENT, "idempotency-key", "BAD_METADATA"))
        return call


def answer(context, refusal):
    """Ends a call with a status."""
    context.abort_with_status(rpc_status.to_status(refusal))


def fingerprint(method, request):
    return hashlib.sha256(method.encode() + b"\0" + request.SerializeToString(deterministic=True)).digest()


class Barrier:
    """Stands before the handlers of one database file."""

    def __init__(self, path):
        self.path = path
        with contextlib.closing(self._connect()) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(SCHEMA)

    def _connect(self):
        # No transaction of Python's own making: this file says BEGIN itself.
        db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        db.execute("PRAGMA synchronous = FULL")
        return db

    @contextlib.contextmanager
    def transaction(self):
        """Waits for other writers, and rolls back unless it is committed."""
        with contextlib.closing(self._connect()) as db:
            db.execute("BEGIN IMMEDIATE")
            yield db

    def take(self, context, method, request, reply_type, work):
        """Answers a call of an action or a compensation; `work(db, action_reply)` does what it asks for.

        `action_reply` is the encoded reply of the action, if this is its compensation."""
        call = Call.of(context)
        if call is None:
            answer(context, no_effect(grpc.StatusCode.FAILED_PRECONDITION, "sagas only", "NOT_IN_A_SAGA"))
        if call.phase not in ("action", "compensation"):
            answer(context, no_effect(grpc.StatusCode.INVALID_ARGUMENT, "a query is no work", "WRONG_PHASE"))
        admit = self._admit_action if call.phase == "action" else self._admit_compensation
        with self.transaction() as db:
            reply, refusal, action_reply = admit(db, call, fingerprint(method, request))
            if reply is None and refusal is None:
                reply, refusal = self._run(db, call, work, action_reply)
            db.execute("COMMIT")
        if refusal is not None:
            answer(context, status_pb2.Status.FromString(refusal))
        return reply_type.FromString(reply)

    def _run(self, db, call, work, action_reply):
        db.execute(MARK)
        try:
            state, kept = "done", work(db, action_reply).SerializeToString(deterministic=True)
        except Refused as refused:
            speaks = {code.value[0] for code in SPEAKS_FOR_ITS_KEY}
            db.execute(ROLL_BACK_WORK)
            if call.phase == "compensation" or refused.status.code not in speaks:
                # Not kept: the next attempt, or a person's, runs the work again.
                db.execute("ROLLBACK")
                db.execute("BEGIN IMMEDIATE")
                return None, refused.status.SerializeToString()
            state, kept = "refused", refused.status.SerializeToString()
        if not self._finish(db, call, call.phase, state, kept):
            raise sqlite3.OperationalError("the barrier's row is gone from the transaction")
        return (kept, None) if state == "done" else (None, kept)

    def _admit_action(self, db, call, print_):
        """The reply, the refusal, and the action's reply; neither of the first two: the work is to be done."""
        if not self._claim(db, call, "action", "started", print_):
            changed = self._execute(
                db, PASS_FENCE, call.saga_id, call.step, call.epoch, call.clock, print_
            ).rowcount
            if changed == 0:
                return self._answer_action(self._rows(db, call), print_)
        closed = self._execute(db, CLOSED, call.saga_id, call.step, call.epoch).fetchone()[0]
        if closed:
            self._finish(db, call, "action", "barred", None)
            return None, compensated(), None
        return None, None, None

    def _answer_action(self, rows, print_):
        state, kept_print, reply = rows["action"]
        if kept_print is not None and kept_print != print_:
            return None, key_reused(), None
        if state == "refused":
            return None, reply, None
        if state == "fenced":
            refusal = no_effect(grpc.StatusCode.FAILED_PRECONDITION, "asked about before it came", "FENCED")
            return None, refusal.SerializeToString(), None
        if state == "barred" or "compensation" in rows:
            return None, compensated(), None
        return reply, None, None

    def _admit_compensation(self, db, call, print_):
        is_first = self._claim(db, call, "action", "barred", None)
        if not self._claim(db, call, "compensation", "started", print_):
            _, kept_print, reply = self._rows(db, call)["compensation"]
            return (None, key_reused(), None) if kept_print != print_ else (reply, None, None)
        if not is_first:
            self._execute(db, REFENCE, call.saga_id, call.step, "barred", call.clock, now())
            state, _, reply = self._rows(db, call)["action"]
            if state == "done":
                return None, None, reply
        # Nothing to undo: the empty message.
        self._finish(db, call, "compensation", "done", b"")
        return b"", None, None

    def query(self, context, reply_type):
        """Answers whether an action took effect, and shuts out one that was on its way."""
        call = Call.of(context)
        if call is None or call.phase != "query":
            answer(context, no_effect(grpc.StatusCode.INVALID_ARGUMENT, "queries only", "WRONG_PHASE"))
        with self.transaction() as db:
            if not self._claim(db, call, "action", "fenced", None):
                self._execute(db, REFENCE, call.saga_id, call.step, "fenced", call.clock, now())
            rows = self._rows(db, call)
            db.execute("COMMIT")
        state, _, reply = rows["action"]
        if state != "done" or "compensation" in rows:
            answer(context, no_effect(grpc.StatusCode.NOT_FOUND, "the action had no effect here", "NO_EFFECT"))
        return reply_type.FromString(reply)

    @staticmethod
    def _execute(db, sql, *values):
        return db.execute(sql, {str(number): value for number, value in enumerate(values, 1)})

    def _claim(self, db, call, phase, state, print_):
        finished = None if state == "started" else now()
        values = (call.saga_id, call.step, phase, state, call.epoch, call.clock, print_, now(), finished)
        return self._execute(db, CLAIM, *values).rowcount == 1

    def _finish(self, db, call, phase, state, reply):
        values = (call.saga_id, call.step, phase, state, reply, now())
        return self._execute(db, FINISH, *values).rowcount == 1

    def _rows(self, db, call):
        found = self._execute(db, ROWS, call.saga_id, call.step)
        return {phase: (state, print_, reply) for phase, state, print_, reply in found}


def compensated():
    text = "the saga rolls back: the action is compensated, and has no effect any more"
    return no_effect(grpc.StatusCode.FAILED_PRECONDITION, text, "COMPENSATED").SerializeToString()


def key_reused():
    text = "this idempotency key came with another request before"
    return status(grpc.StatusCode.ALREADY_EXISTS, text, "KEY_REUSED").SerializeToString()


def now():
    return time.time_ns() // 1000
