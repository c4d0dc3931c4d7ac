//! The one part of the bank that knows Backstop: it hears at once that a saga rolls back, and keeps that.
//!
//! Optional: without it the ledger would be undone just the same, by its ordinary reversal calls. A real
//! bank would use the moment to warn a cashier or to freeze a limit.

use super::{Books, BooksError};
use crate::wire::now_unix_micros;
use backstop_proto::participant::v1::rollback_listener_service_server::RollbackListenerService;
use backstop_proto::participant::v1::{OnRollbackRequest, OnRollbackResponse};
use backstop_proto::v1::rollback_cause;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};

/// A signal as it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSignal {
    /// The saga.
    pub saga_id: String,
    /// Why it rolls back: `STEP_FAILED credit FIN-40005`.
    pub cause: String,
    /// This ledger's branches: `debit=SUCCEEDED`.
    pub branches: String,
}

/// Signals that may wait to be written; more are refused, since news can be sent again.
const WAITING_MAX: usize = 1024;

/// Keeps rollback signals in the ledger's file. A signal that comes again is the same signal.
///
/// A signal is answered when it is heard, not when it is written: it is news, and no booking hangs on it.
#[derive(Debug, Clone)]
pub struct Listener {
    heard: mpsc::Sender<OnRollbackRequest>,
}

impl Listener {
    /// Keeps them in these books. The task ends when every clone of the listener is gone and all that was
    /// heard is written.
    #[must_use]
    pub fn start(books: Books) -> (Self, JoinHandle<()>) {
        let (heard, mut waiting) = mpsc::channel(WAITING_MAX);
        let writer = tokio::spawn(async move {
            while let Some(signal) = waiting.recv().await {
                if let Err(error) = books.keep_signal(&signal, now_unix_micros()).await {
                    let error: &(dyn std::error::Error + 'static) = &error;
                    tracing::error!(error, "a signal cannot be kept");
                }
            }
        });
        (Self { heard }, writer)
    }
}

impl Books {
    /// The rollback signals that came, by saga and clock.
    ///
    /// # Errors
    /// [`BooksError::Sqlite`].
    pub async fn rollback_signals(&self) -> Result<Vec<KeptSignal>, BooksError> {
        let rows: Vec<(String, String, String)> =
            sqlx::query_as("SELECT saga_id, cause, branches FROM rollback_signal ORDER BY saga_id, clock")
                .fetch_all(&self.pool)
                .await?;
        Ok(rows
            .into_iter()
            .map(|(saga_id, cause, branches)| KeptSignal { saga_id, cause, branches })
            .collect())
    }

    async fn keep_signal(&self, signal: &OnRollbackRequest, now_unix_micros: i64) -> Result<(), BooksError> {
        let cause = signal.cause.clone().unwrap_or_default();
        let kind = rollback_cause::Kind::try_from(cause.kind).unwrap_or_default();
        let kind = kind.as_str_name().trim_start_matches("KIND_");
        let fin_code = cause.failure.map(|failure| failure.fin_code).unwrap_or_default();
        let branches: Vec<String> =
            signal.branches.iter().map(|branch| format!("{}={}", branch.step, branch.state)).collect();
        sqlx::query("INSERT OR IGNORE INTO rollback_signal VALUES (?1, ?2, ?3, ?4, ?5)")
            .bind(&signal.saga_id)
            .bind(i64::try_from(signal.clock).unwrap_or(i64::MAX))
            .bind(format!("{kind} {} {fin_code}", cause.step).trim_end())
            .bind(branches.join(" "))
            .bind(now_unix_micros)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

#[tonic::async_trait]
impl RollbackListenerService for Listener {
    async fn on_rollback(
        &self,
        request: Request<OnRollbackRequest>,
    ) -> Result<Response<OnRollbackResponse>, Status> {
        let signal = request.into_inner();
        tracing::info!(saga_id = signal.saga_id, definition = signal.definition, "a saga rolls back");
        let heard = self.heard.try_send(signal);
        heard.map_err(|_| Status::resource_exhausted("too many signals wait to be written"))?;
        Ok(Response::new(OnRollbackResponse {}))
    }
}
