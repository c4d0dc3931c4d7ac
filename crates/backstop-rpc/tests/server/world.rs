//! A served coordinator, a participant that never answers and one that is not there.

use backstop_engine::memory_store::MemoryStore;
use backstop_engine::ports::machine::ThisMachine;
use backstop_engine::ports::peers::NoPeers;
use backstop_engine::ports::traces::NoTraces;
use backstop_engine::{Coordinator, Ports, Settings};
use backstop_proto::v1;
use backstop_proto::v1::definition_service_client::DefinitionServiceClient;
use backstop_proto::v1::operator_service_client::OperatorServiceClient;
use backstop_proto::v1::participant_service_client::ParticipantServiceClient;
use backstop_proto::v1::saga_service_client::SagaServiceClient;
use backstop_rpc::participants::ParticipantClient;
use backstop_rpc::{ServerSettings, serve};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_types::{ErrorInfo, StatusExt};

/// What any of this may take.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// A definition whose only action is never answered.
pub(crate) const SLOW: &str = "slow";
/// A definition whose only action fails at once, so that there is nothing to undo.
pub(crate) const BRIEF: &str = "brief";

pub(crate) struct World {
    pub(crate) coordinator: Coordinator,
    pub(crate) address: SocketAddr,
    channel: Channel,
    serving: JoinHandle<()>,
    /// Connections to it are made, and never looked at.
    silent: TcpListener,
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl World {
    /// With its definitions.
    pub(crate) async fn new(settings: ServerSettings) -> Self {
        let world = Self::bare(settings).await;
        world.define(SLOW, world.silent.local_addr().unwrap()).await;
        // Free again at once.
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        world.define(BRIEF, gone).await;
        world
    }

    /// Without a word from any client yet.
    pub(crate) async fn bare(settings: ServerSettings) -> Self {
        let client = Arc::new(ParticipantClient::new(Default::default()));
        let ports = Ports {
            store: Arc::new(MemoryStore::new()),
            participants: Arc::clone(&client) as _,
            peers: Arc::new(NoPeers),
            machine: Arc::new(ThisMachine),
            traces: Arc::new(NoTraces),
        };
        let coordinator = Coordinator::start(ports, Settings::default(), "127.0.0.1:1").await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = serve(listener, coordinator.clone(), client, settings, std::future::pending());
        let serving = tokio::spawn(async move { served.await.unwrap() });
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { coordinator, address, channel, serving, silent }
    }

    /// A definition of one step, and a participant of the same name at this address.
    async fn define(&self, name: &str, address: SocketAddr) {
        let participant = v1::Participant {
            name: name.to_owned(),
            endpoints: vec![format!("http://{address}")],
            ..Default::default()
        };
        let request = v1::RegisterParticipantRequest { participant: Some(participant) };
        ParticipantServiceClient::new(self.channel()).register_participant(request).await.unwrap();
        let action = v1::Call {
            participant: name.to_owned(),
            method: "bank.v1.Ledger/Debit".to_owned(),
            request: Some(prost_types::Struct::default()),
            timeout: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            retry: Some(v1::RetryPolicy { attempts_max: 1, ..Default::default() }),
        };
        let step = v1::Step {
            name: "look".to_owned(),
            kind: v1::StepKind::ReadOnly.into(),
            action: Some(action),
            ..Default::default()
        };
        let definition = v1::Definition { name: name.to_owned(), steps: vec![step], ..Default::default() };
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/participants");
        let request = v1::RegisterDefinitionRequest {
            definition: Some(definition),
            descriptors: Some(protox::compile(["bank.proto"], [folder]).unwrap()),
            ..Default::default()
        };
        DefinitionServiceClient::new(self.channel()).register_definition(request).await.unwrap();
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn sagas(&self) -> SagaServiceClient<Channel> {
        SagaServiceClient::new(self.channel())
    }

    pub(crate) fn operators(&self) -> OperatorServiceClient<Channel> {
        OperatorServiceClient::new(self.channel())
    }

    /// Starts a saga, and waits for its end if that can be waited for.
    pub(crate) async fn start(&self, definition: &str, saga: &str) -> Result<v1::Saga, Status> {
        let wait = prost_types::Duration { seconds: 30, nanos: 0 };
        let request = v1::StartSagaRequest {
            saga_id: saga.to_owned(),
            definition: definition.to_owned(),
            wait: (definition == BRIEF).then_some(wait),
            ..Default::default()
        };
        Ok(self.sagas().start_saga(request).await?.into_inner().saga.unwrap())
    }
}

/// The ErrorInfo of a status of ours.
#[track_caller]
pub(crate) fn info(status: &Status) -> ErrorInfo {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("{status:?} has no ErrorInfo"));
    assert_eq!(info.domain, "backstop");
    info
}

/// What stands in an ErrorInfo under this name.
pub(crate) fn told<'a>(info: &'a ErrorInfo, key: &str) -> Option<&'a str> {
    info.metadata.get(key).map(String::as_str)
}
