//! One service as a process: bound, announced on standard output, with health and reflection, until it is
//! told to end.
//!
//! # Invariants
//! - `listening ADDRESS` is printed only once connections are accepted.
//! - A ledger's reflection shows its own API and the rollback listener, nothing else of Backstop.

use crate::audit::Audit;
use crate::bank::audit::audit_service_server::AuditServiceServer;
use crate::bank::ledger::OpenAccountRequest;
use crate::bank::ledger::ledger_service_server::LedgerServiceServer;
use crate::bank::risk::risk_service_server::RiskServiceServer;
use crate::bank::{AUDIT_DESCRIPTORS, LEDGER_DESCRIPTORS, RISK_DESCRIPTORS};
use crate::ledger::signals::Listener;
use crate::ledger::{Books, BooksError, Ledger};
use crate::risk::Risk;
use crate::spec::{ServiceKind, ServiceSpec};
use crate::story::LEDGERS;
use crate::story::files::{self, FileError};
use crate::trace::TraceLayer;
use crate::wire::now_unix_micros;
use backstop_proto::participant::v1::rollback_listener_service_server::RollbackListenerServiceServer;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// How long calls in flight may take to end once the service is told to.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// Begins the one line that a process prints on standard output once it is ready; its address follows.
pub const LISTENING: &str = "listening ";

/// Why a service cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The ledger's file cannot be used.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// The audit file cannot be used.
    #[error("the audit file cannot be used")]
    AuditFile(#[source] sqlx::Error),
    /// The file of accounts is wrong.
    #[error("the file of accounts is wrong")]
    Accounts(#[from] FileError),
    /// The address cannot be listened on, or announced, or a signal handler cannot be set.
    #[error("cannot listen")]
    Io(#[from] std::io::Error),
    /// The server broke off.
    #[error("the server broke off")]
    Serve(#[from] tonic::transport::Error),
    /// The descriptors that were compiled in are unsound.
    #[error("reflection cannot be served")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Runs a service as this whole process: prints `listening ADDRESS`, and ends on SIGTERM, SIGINT or, if so
/// specified, at the end of standard input. Logs go to standard error.
///
/// # Errors
/// [`ServiceError`].
pub async fn run_service(spec: ServiceSpec) -> Result<(), ServiceError> {
    // A subscriber that the process has set already stays.
    let _ = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).try_init();
    let listener = TcpListener::bind(spec.listen).await?;
    let address = listener.local_addr()?;
    let shutdown = CancellationToken::new();
    let ends_with_stdin = spec.stop_at_stdin_end;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told_to_end = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = stdin_end(), if ends_with_stdin => {}
        }
        told_to_end.cancel();
    });
    let routes = routes(&spec).await?;
    let mut out = std::io::stdout();
    writeln!(out, "{LISTENING}{address}")?;
    out.flush()?;
    tracing::info!(service = spec.name, %address, "listening");
    serve_routes(routes, listener, shutdown).await
}

/// Serves on a listener until the token is cancelled, and then for two more seconds at most.
///
/// # Errors
/// [`ServiceError`].
pub async fn serve(
    spec: &ServiceSpec,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ServiceError> {
    serve_routes(routes(spec).await?, listener, shutdown).await
}

async fn serve_routes(
    routes: RoutesBuilder,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ServiceError> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder()
        .layer(TraceLayer)
        .add_routes(routes.routes())
        .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN_MAX).await;
    };
    tokio::select! {
        served = server => Ok(served?),
        () = overdue => Ok(()),
    }
}

async fn routes(spec: &ServiceSpec) -> Result<RoutesBuilder, ServiceError> {
    let mut routes = RoutesBuilder::default();
    let mut names = vec![];
    let mut descriptors = vec![tonic_health::pb::FILE_DESCRIPTOR_SET];
    match &spec.kind {
        ServiceKind::Ledger { db, accounts, chaos } => {
            let books = Books::open(db, &spec.name).await?;
            if let Some(file) = accounts {
                open_accounts(&books, &spec.name, file).await?;
            }
            let ledger = LedgerServiceServer::new(Ledger::new(books.clone(), *chaos));
            // Its writer ends with the process: what was heard last is news that may be lost.
            let (listener, _) = Listener::start(books);
            let listener = RollbackListenerServiceServer::new(listener);
            names.extend([name_of(&ledger), name_of(&listener)]);
            descriptors.extend([LEDGER_DESCRIPTORS, backstop_proto::DESCRIPTORS]);
            routes.add_service(ledger).add_service(listener);
        }
        ServiceKind::Risk { limit_minor } => {
            let risk = RiskServiceServer::new(Risk::new(*limit_minor));
            names.push(name_of(&risk));
            descriptors.push(RISK_DESCRIPTORS);
            routes.add_service(risk);
        }
        ServiceKind::Audit { db } => {
            let audit = Audit::open(db).await.map_err(ServiceError::AuditFile)?;
            let audit = AuditServiceServer::new(audit);
            names.push(name_of(&audit));
            descriptors.push(AUDIT_DESCRIPTORS);
            routes.add_service(audit);
        }
    }
    let (health, health_service) = tonic_health::server::health_reporter();
    for name in &names {
        health.set_service_status(*name, tonic_health::ServingStatus::Serving).await;
    }
    names.push("grpc.health.v1.Health");
    routes.add_service(health_service);
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure();
        let builder = names.iter().fold(builder, |builder, name| builder.with_service_name(*name));
        descriptors.iter().fold(builder, |builder, set| builder.register_encoded_file_descriptor_set(set))
    };
    routes.add_service(reflection().build_v1()?);
    routes.add_service(reflection().build_v1alpha()?);
    Ok(routes)
}

/// Opens the accounts of a file that are this ledger's. One that is there already stays as it is, whatever it was
/// opened with: a restart is no reason to ask.
async fn open_accounts(books: &Books, ledger: &str, file: &Path) -> Result<(), ServiceError> {
    let name = file.display().to_string();
    let text = tokio::fs::read_to_string(file).await?;
    for account in files::accounts(&name, &text, LEDGERS)? {
        if account.ledger == ledger {
            let request = OpenAccountRequest {
                account: account.account,
                currency: account.currency,
                opening_minor: account.opening_minor,
            };
            // A refusal says that it was opened otherwise.
            let _ = books.open_account(&request, now_unix_micros()).await?;
        }
    }
    Ok(())
}

fn name_of<S: NamedService>(_: &S) -> &'static str {
    S::NAME
}

/// Ends when standard input does. What the demo starts has its standard input held open by the demo, and by
/// nobody else: when it ends, the demo is gone, however it went.
pub async fn stdin_end() {
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    // A thread of its own: a read of the runtime's would keep the process from ending.
    std::thread::spawn(move || {
        let mut byte = [0_u8; 64];
        while matches!(std::io::stdin().read(&mut byte), Ok(n) if n > 0) {}
        drop(ended);
    });
    // The thread says nothing: that it is gone is the news.
    let _ = end.await;
}
