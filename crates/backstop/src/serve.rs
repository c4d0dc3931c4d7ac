//! `backstop serve` and `backstop migrate`: opens the store, starts a coordinator, serves its API, and
//! leaves in order.

use crate::config::{self, Configuration, Flags, StoreUrl};
use crate::telemetry;
use anyhow::{Context, bail};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use backstop_engine::ports::machine::ThisMachine;
use backstop_engine::ports::store::Store;
use backstop_engine::{Coordinator, Ports};
use backstop_rpc::PeerClient;
use backstop_rpc::participants::ParticipantClient;
use backstop_sql::{PostgresStore, SqliteStore};
use prometheus::Encoder;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long answers that are under way may take once the coordinator has drained.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Runs a coordinator
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  backstop serve --store sqlite:bank.db\n  \
                        backstop serve --store postgres://backstop@db/backstop --migrate")]
pub(crate) struct Serve {
    #[command(flatten)]
    flags: Flags,
    /// Bring a Postgres schema up to date first
    #[arg(long)]
    migrate: bool,
    /// Show every setting in force, secrets hidden, and end
    #[arg(long)]
    print_config: bool,
    /// Stop when standard input ends: nobody is left who would stop it
    #[arg(long, hide = true)]
    stop_at_stdin_end: bool,
}

/// Brings the store's schema up to date
#[derive(Debug, clap::Args)]
pub(crate) struct Migrate {
    #[command(flatten)]
    flags: Flags,
}

impl Migrate {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let configuration = config::load(&self.flags)?;
        match &configuration.store {
            StoreUrl::Postgres(url) => backstop_sql::postgres_migrate(url).await?,
            // SQLite brings itself up to date when it is opened.
            StoreUrl::Sqlite(path) => drop(SqliteStore::open(path).await?),
        }
        writeln!(std::io::stdout(), "the schema is up to date")?;
        Ok(())
    }
}

impl Serve {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        if self.print_config {
            write!(std::io::stdout(), "{}", config::print(&self.flags)?)?;
            return Ok(());
        }
        let configuration = config::load(&self.flags)?;
        let telemetry = telemetry::start(&configuration.telemetry)?;
        let served = serve(configuration, &self, &telemetry).await;
        telemetry.stop();
        served
    }
}

async fn serve(
    configuration: Configuration,
    asked: &Serve,
    telemetry: &telemetry::Running,
) -> anyhow::Result<()> {
    let store = open(&configuration, asked.migrate).await?;
    let listen = configuration.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    // Both ports before the lease: what stops here leaves no sagas behind that somebody has to wait for.
    let metrics = match configuration.metrics_listen {
        Some(address) => {
            let bound = TcpListener::bind(address).await;
            Some(bound.with_context(|| format!("cannot listen on {address} for metrics"))?)
        }
        None => None,
    };
    let client = Arc::new(ParticipantClient::new(configuration.participants.clone()));
    let ports = Ports {
        store,
        participants: Arc::clone(&client) as _,
        peers: Arc::new(PeerClient::new()),
        machine: Arc::new(ThisMachine),
        traces: Arc::clone(&telemetry.sagas),
    };
    let reached_at = configuration.advertise.unwrap_or_else(|| address.to_string());
    if address.ip().is_unspecified() && reached_at == address.to_string() {
        tracing::warn!(
            "listening on every address: set `advertise`, or commands about sagas of this coordinator must be sent to it"
        );
    }
    let coordinator = Coordinator::start(ports, configuration.engine, &reached_at).await?;
    if let Some(listener) = metrics {
        tracing::info!(address = %listener.local_addr()?, "metrics");
        tokio::spawn(serve_metrics(listener, telemetry.registry.clone(), coordinator.clone()));
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let api = backstop_rpc::serve(
        listener,
        coordinator.clone(),
        client,
        configuration.server,
        stop.clone().cancelled_owned(),
    );
    let mut api = tokio::spawn(api);
    // One line for whoever has started us: the port is known, and requests are answered from now on.
    writeln!(std::io::stdout(), "listening {address}")?;
    tokio::select! {
        served = &mut api => {
            served?.map_err(anyhow::Error::from_boxed)?;
            bail!("the API has stopped by itself");
        }
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = backstop_demo::service::stdin_end(), if asked.stop_at_stdin_end => {}
    }
    tracing::info!("stopping: no new sagas; those that run are let go of");
    // The API answers while the coordinator drains: health says NOT_SERVING, StartSaga UNAVAILABLE.
    coordinator.drain(configuration.drain_time).await;
    stop.cancel();
    match tokio::time::timeout(LAST_ANSWERS, api).await {
        Ok(served) => served?.map_err(anyhow::Error::from_boxed)?,
        Err(_) => tracing::warn!("some answers were still under way"),
    }
    Ok(())
}

async fn open(configuration: &Configuration, migrate: bool) -> anyhow::Result<Arc<dyn Store>> {
    match &configuration.store {
        StoreUrl::Sqlite(path) => {
            let store = SqliteStore::open(path).await;
            Ok(Arc::new(store.with_context(|| format!("cannot open sqlite:{}", path.display()))?))
        }
        StoreUrl::Postgres(url) => {
            let shown = config::without_password(url);
            if migrate {
                backstop_sql::postgres_migrate(url)
                    .await
                    .with_context(|| format!("cannot migrate {shown}"))?;
            }
            let store = PostgresStore::connect(url, configuration.postgres.clone()).await;
            Ok(Arc::new(store.with_context(|| format!("cannot open {shown}"))?))
        }
    }
}

async fn serve_metrics(listener: TcpListener, registry: prometheus::Registry, coordinator: Coordinator) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .with_state(registry)
        .merge(Router::new().route("/healthz", get(health)).with_state(coordinator));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "/metrics is gone");
    }
}

async fn metrics(State(registry): State<prometheus::Registry>) -> Result<Vec<u8>, StatusCode> {
    let mut text = Vec::new();
    prometheus::TextEncoder::new()
        .encode(&registry.gather(), &mut text)
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(text)
}

async fn health(State(coordinator): State<Coordinator>) -> (StatusCode, &'static str) {
    if coordinator.is_serving() {
        (StatusCode::OK, "serving\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not serving\n")
    }
}
