//! The barrier's statements, as they stand in `docs/participant-contract.md`, word for word
//! (`tests/contract/document.rs`). The same text serves both engines.

pub(crate) const CLAIM: &str = "\
INSERT INTO backstop_barrier
    (saga_id, step, phase, state, epoch, clock, fingerprint, created_unix_micros, finished_unix_micros)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (saga_id, step, phase) DO NOTHING";

pub(crate) const PASS_FENCE: &str = "\
UPDATE backstop_barrier
SET state = 'started', epoch = $3, clock = $4, fingerprint = $5, finished_unix_micros = NULL
WHERE saga_id = $1 AND step = $2 AND phase = 'action' AND state = 'fenced' AND clock < $4";

pub(crate) const REFENCE: &str = "\
UPDATE backstop_barrier
SET state = $3, clock = CASE WHEN clock < $4 THEN $4 ELSE clock END, finished_unix_micros = $5
WHERE saga_id = $1 AND step = $2 AND phase = 'action' AND state = 'fenced'";

pub(crate) const FINISH: &str = "\
UPDATE backstop_barrier SET state = $4, reply = $5, finished_unix_micros = $6
WHERE saga_id = $1 AND step = $2 AND phase = $3 AND state = 'started'";

pub(crate) const ROWS: &str = "\
SELECT phase, state, fingerprint, reply FROM backstop_barrier
WHERE saga_id = $1 AND step = $2";

pub(crate) const CLOSED: &str = "\
SELECT COUNT(*) FROM backstop_barrier
WHERE saga_id = $1 AND phase <> 'action'
    AND (epoch > $3 OR phase = 'compensation' AND step = $2)";

pub(crate) const CLOSE: &str = "\
INSERT INTO backstop_barrier
    (saga_id, step, phase, state, epoch, clock, created_unix_micros, finished_unix_micros)
VALUES ($1, '', 'closed', 'done', $2, 0, $3, $3)
ON CONFLICT (saga_id, step, phase) DO UPDATE SET epoch = $2
WHERE backstop_barrier.epoch < $2";

pub(crate) const PURGE: &str = "\
DELETE FROM backstop_barrier WHERE (saga_id, step, phase) IN (
    SELECT saga_id, step, phase FROM backstop_barrier AS old
    WHERE finished_unix_micros < $1 AND NOT EXISTS (
        SELECT 1 FROM backstop_barrier AS kept
        WHERE kept.saga_id = old.saga_id AND kept.step = old.step
            AND (kept.finished_unix_micros IS NULL OR kept.finished_unix_micros >= $1))
    ORDER BY finished_unix_micros LIMIT $2)";

pub(crate) const MARK: &str = "\
SAVEPOINT backstop_work";

pub(crate) const ROLL_BACK_WORK: &str = "\
ROLLBACK TO SAVEPOINT backstop_work";
