//! All services of a coordinator behind one port: the API, health, and reflection (v1 and v1alpha).
//!
//! # Invariants
//! * A client that has vanished without a word is found out, and its watches end with its connection; one that is there is
//!   kept, however silent (`tests/server/connections.rs`).
//! * One connection has so many calls and watches at a time, and no more.
//!
//! # Not here
//! What a call may bring: the limits of `backstop_engine::Settings`, and `guard`.

use crate::guard::GuardLayer;
use crate::participants::ParticipantClient;
use crate::services::{Definitions, Operators, ParticipantRegistry, Sagas};
use backstop_engine::Coordinator;
use backstop_proto::DESCRIPTORS;
use backstop_proto::v1::definition_service_server::DefinitionServiceServer;
use backstop_proto::v1::operator_service_server::OperatorServiceServer;
use backstop_proto::v1::participant_service_server::ParticipantServiceServer;
use backstop_proto::v1::saga_service_server::SagaServiceServer;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::server::HealthReporter;

/// How the API is served.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Bytes of one request.
    pub request_bytes_max: usize,
    /// Whether server reflection is on.
    pub reflection: bool,
    /// Calls and watches of one connection at once.
    pub streams_max: u32,
    /// How long nothing comes over a connection before it is pinged; zero: it is never.
    pub keepalive_interval: Duration,
    /// How long such a ping may stay unanswered.
    pub keepalive_timeout: Duration,
    /// How long a connection is silent before TCP itself probes it; zero: it never does.
    pub tcp_keepalive: Duration,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            request_bytes_max: 4 << 20,
            reflection: true,
            streams_max: 10_000,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            tcp_keepalive: Duration::from_secs(60),
        }
    }
}

/// How often health is brought in line with whether the coordinator may act.
const HEALTH_EVERY: Duration = Duration::from_millis(500);

/// Serves the API until `shutdown` resolves and the requests under way are answered.
///
/// # Errors
/// If the transport fails, or the descriptor set is unreadable.
pub async fn serve(
    listener: TcpListener,
    coordinator: Coordinator,
    client: Arc<ParticipantClient>,
    settings: ServerSettings,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let limit = settings.request_bytes_max;
    let (reporter, health) = tonic_health::server::health_reporter();
    let watching = tokio::spawn(report_health(reporter, coordinator.clone()));
    let mut router = Server::builder()
        .max_concurrent_streams(settings.streams_max)
        .http2_keepalive_interval(unless_never(settings.keepalive_interval))
        .http2_keepalive_timeout(Some(settings.keepalive_timeout))
        .layer(GuardLayer)
        .add_service(health)
        .add_service(
            DefinitionServiceServer::new(Definitions::new(coordinator.clone(), client))
                .max_decoding_message_size(limit),
        )
        .add_service(
            ParticipantServiceServer::new(ParticipantRegistry::new(coordinator.clone()))
                .max_decoding_message_size(limit),
        )
        .add_service(
            OperatorServiceServer::new(Operators::new(coordinator.clone())).max_decoding_message_size(limit),
        )
        .add_service(SagaServiceServer::new(Sagas::new(coordinator)).max_decoding_message_size(limit));
    if settings.reflection {
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        router = router.add_service(builder().build_v1()?).add_service(builder().build_v1alpha()?);
    }
    let incoming = TcpIncoming::from(listener)
        .with_nodelay(Some(true))
        .with_keepalive(unless_never(settings.tcp_keepalive));
    let served = router.serve_with_incoming_shutdown(incoming, shutdown).await;
    watching.abort();
    Ok(served?)
}

/// Zero stands for never.
fn unless_never(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

async fn report_health(reporter: HealthReporter, coordinator: Coordinator) {
    let mut was: Option<bool> = None;
    loop {
        let serving = coordinator.is_serving();
        if was != Some(serving) {
            let status = if serving {
                tonic_health::ServingStatus::Serving
            } else {
                tonic_health::ServingStatus::NotServing
            };
            let names = [
                "",
                "backstop.v1.DefinitionService",
                "backstop.v1.OperatorService",
                "backstop.v1.ParticipantService",
                "backstop.v1.SagaService",
            ];
            for name in names {
                reporter.set_service_status(name, status).await;
            }
            was = Some(serving);
        }
        coordinator.serving_may_have_changed(HEALTH_EVERY).await;
    }
}
