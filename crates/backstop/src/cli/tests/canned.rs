//! A server that answers what the test says and remembers what it was asked.

use backstop_proto::v1::definition_service_server::{DefinitionService, DefinitionServiceServer};
use backstop_proto::v1::operator_service_server::{OperatorService, OperatorServiceServer};
use backstop_proto::v1::participant_service_server::{ParticipantService, ParticipantServiceServer};
use backstop_proto::v1::saga_service_server::{SagaService, SagaServiceServer};
use backstop_proto::v1::{
    CancelSagaRequest, CancelSagaResponse, Definition, GetDefinitionRequest, GetDefinitionResponse,
    GetErrorTableRequest, GetErrorTableResponse, GetOverviewRequest, GetOverviewResponse,
    GetParticipantRequest, GetParticipantResponse, GetSagaRequest, GetSagaResponse, ListCoordinatorsRequest,
    ListCoordinatorsResponse, ListDefinitionsRequest, ListDefinitionsResponse, ListParticipantsRequest,
    ListParticipantsResponse, ListSagasRequest, ListSagasResponse, Participant, RegisterDefinitionRequest,
    RegisterDefinitionResponse, RegisterParticipantRequest, RegisterParticipantResponse, ReleaseSagaRequest,
    ReleaseSagaResponse, ResolveBranchRequest, ResolveBranchResponse, RetryBranchRequest,
    RetryBranchResponse, RunDoctorRequest, RunDoctorResponse, Saga, SimulateDefinitionRequest,
    SimulateDefinitionResponse, StartSagaRequest, StartSagaResponse, WatchSagaRequest, WatchSagaResponse,
};
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

/// What a call of `WatchSaga` sends before it ends.
pub(in crate::cli) type Streamed = Vec<Result<WatchSagaResponse, Status>>;

/// What the server answers, and what it was asked.
#[derive(Default)]
pub(in crate::cli) struct Canned {
    /// Answered by every call about one saga.
    pub(in crate::cli) saga: Saga,
    /// Whether StartSaga says that it made it.
    pub(in crate::cli) created: bool,
    /// All sagas there are, for lists.
    pub(in crate::cli) sagas: Vec<Saga>,
    /// Answered by every call about one definition.
    pub(in crate::cli) definition: Definition,
    /// Answered by SimulateDefinition.
    pub(in crate::cli) simulation: SimulateDefinitionResponse,
    /// All participants there are.
    pub(in crate::cli) participants: Vec<Participant>,
    /// Answered by ListCoordinators.
    pub(in crate::cli) coordinators: ListCoordinatorsResponse,
    /// Answered by GetErrorTable.
    pub(in crate::cli) table: GetErrorTableResponse,
    /// Answered by RunDoctor.
    pub(in crate::cli) doctor: RunDoctorResponse,
    /// Answered by GetOverview.
    pub(in crate::cli) overview: GetOverviewResponse,
    /// Refuses commands about these sagas.
    pub(in crate::cli) refusals: BTreeMap<String, Status>,
    /// Answered by WatchSaga, a stream a call.
    pub(in crate::cli) streams: Mutex<VecDeque<Streamed>>,
    /// Refuses every call but WatchSaga.
    pub(in crate::cli) refusal: Option<Status>,
    /// Never answers StartSaga.
    pub(in crate::cli) is_silent: bool,
    /// Every request, as Rust prints it.
    pub(in crate::cli) asked: Mutex<Vec<String>>,
}

/// A running server.
pub(in crate::cli) struct Server {
    /// Its address.
    pub(in crate::cli) url: String,
    canned: Arc<Canned>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// What it was asked, in order.
    pub(in crate::cli) fn asked(&self) -> Vec<String> {
        self.canned.asked.lock().unwrap().clone()
    }
}

impl Canned {
    /// Serves on a free port of loopback until the handle is dropped.
    pub(in crate::cli) async fn serve(self) -> Server {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let canned = Arc::new(self);
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let router = tonic::transport::Server::builder()
            .add_service(SagaServiceServer::from_arc(Arc::clone(&canned)))
            .add_service(DefinitionServiceServer::from_arc(Arc::clone(&canned)))
            .add_service(ParticipantServiceServer::from_arc(Arc::clone(&canned)))
            .add_service(OperatorServiceServer::from_arc(Arc::clone(&canned)));
        let task = tokio::spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
        Server { url, canned, task }
    }

    /// The saga of that id, if lists have one, and otherwise the one that every call is about.
    fn called(&self, id: &str) -> Saga {
        self.sagas.iter().find(|saga| saga.id == id).unwrap_or(&self.saga).clone()
    }

    /// What a command about a saga comes to.
    fn commanded(&self, id: &str) -> Result<(), Status> {
        self.refusals.get(id).map_or(Ok(()), |status| Err(status.clone()))
    }

    fn answer<Q: std::fmt::Debug, A>(&self, request: Request<Q>, answer: A) -> Result<Response<A>, Status> {
        self.asked.lock().unwrap().push(format!("{:?}", request.into_inner()));
        match &self.refusal {
            Some(status) => Err(status.clone()),
            None => Ok(Response::new(answer)),
        }
    }
}

/// A page of a list whose tokens are positions.
fn page<T: Clone>(all: &[T], page_size: i32, page_token: &str) -> (Vec<T>, String) {
    let from: usize = page_token.parse().unwrap_or(0);
    let to = (from + usize::try_from(page_size).unwrap()).min(all.len());
    (all[from..to].to_vec(), if to < all.len() { to.to_string() } else { String::new() })
}

#[tonic::async_trait]
impl SagaService for Canned {
    async fn start_saga(
        &self,
        request: Request<StartSagaRequest>,
    ) -> Result<Response<StartSagaResponse>, Status> {
        if self.is_silent {
            std::future::pending::<()>().await;
        }
        self.answer(request, StartSagaResponse { saga: Some(self.saga.clone()), created: self.created })
    }

    async fn get_saga(&self, request: Request<GetSagaRequest>) -> Result<Response<GetSagaResponse>, Status> {
        let saga = self.called(&request.get_ref().saga_id);
        self.answer(request, GetSagaResponse { saga: Some(saga) })
    }

    async fn list_sagas(
        &self,
        request: Request<ListSagasRequest>,
    ) -> Result<Response<ListSagasResponse>, Status> {
        let (sagas, next_page_token) =
            page(&self.sagas, request.get_ref().page_size, &request.get_ref().page_token);
        self.answer(request, ListSagasResponse { sagas, next_page_token })
    }

    type WatchSagaStream = Pin<Box<dyn Stream<Item = Result<WatchSagaResponse, Status>> + Send>>;

    async fn watch_saga(
        &self,
        request: Request<WatchSagaRequest>,
    ) -> Result<Response<Self::WatchSagaStream>, Status> {
        self.asked.lock().unwrap().push(format!("{:?}", request.into_inner()));
        let events = self.streams.lock().unwrap().pop_front().unwrap_or_default();
        Ok(Response::new(Box::pin(tokio_stream::iter(events))))
    }

    async fn cancel_saga(
        &self,
        request: Request<CancelSagaRequest>,
    ) -> Result<Response<CancelSagaResponse>, Status> {
        let done = self.commanded(&request.get_ref().saga_id);
        let answer = CancelSagaResponse { saga: Some(self.saga.clone()) };
        self.answer(request, answer).and_then(|answer| done.map(|()| answer))
    }
}

#[tonic::async_trait]
impl DefinitionService for Canned {
    async fn register_definition(
        &self,
        request: Request<RegisterDefinitionRequest>,
    ) -> Result<Response<RegisterDefinitionResponse>, Status> {
        let definition = Some(self.definition.clone());
        self.answer(request, RegisterDefinitionResponse { definition, created: self.created })
    }

    async fn get_definition(
        &self,
        request: Request<GetDefinitionRequest>,
    ) -> Result<Response<GetDefinitionResponse>, Status> {
        self.answer(request, GetDefinitionResponse { definition: Some(self.definition.clone()) })
    }

    async fn list_definitions(
        &self,
        request: Request<ListDefinitionsRequest>,
    ) -> Result<Response<ListDefinitionsResponse>, Status> {
        let definitions = vec![self.definition.clone()];
        self.answer(request, ListDefinitionsResponse { definitions, next_page_token: String::new() })
    }

    async fn simulate_definition(
        &self,
        request: Request<SimulateDefinitionRequest>,
    ) -> Result<Response<SimulateDefinitionResponse>, Status> {
        self.answer(request, self.simulation.clone())
    }
}

#[tonic::async_trait]
impl ParticipantService for Canned {
    async fn register_participant(
        &self,
        request: Request<RegisterParticipantRequest>,
    ) -> Result<Response<RegisterParticipantResponse>, Status> {
        let participant = request.get_ref().participant.clone();
        self.answer(request, RegisterParticipantResponse { participant })
    }

    async fn get_participant(
        &self,
        request: Request<GetParticipantRequest>,
    ) -> Result<Response<GetParticipantResponse>, Status> {
        self.answer(request, GetParticipantResponse { participant: self.participants.first().cloned() })
    }

    async fn list_participants(
        &self,
        request: Request<ListParticipantsRequest>,
    ) -> Result<Response<ListParticipantsResponse>, Status> {
        let (participants, next_page_token) =
            page(&self.participants, request.get_ref().page_size, &request.get_ref().page_token);
        self.answer(request, ListParticipantsResponse { participants, next_page_token })
    }
}

#[tonic::async_trait]
impl OperatorService for Canned {
    async fn retry_branch(
        &self,
        request: Request<RetryBranchRequest>,
    ) -> Result<Response<RetryBranchResponse>, Status> {
        let done = self.commanded(&request.get_ref().saga_id);
        let answer = RetryBranchResponse { saga: Some(self.saga.clone()) };
        self.answer(request, answer).and_then(|answer| done.map(|()| answer))
    }

    async fn resolve_branch(
        &self,
        request: Request<ResolveBranchRequest>,
    ) -> Result<Response<ResolveBranchResponse>, Status> {
        let done = self.commanded(&request.get_ref().saga_id);
        let answer = ResolveBranchResponse { saga: Some(self.saga.clone()) };
        self.answer(request, answer).and_then(|answer| done.map(|()| answer))
    }

    async fn list_coordinators(
        &self,
        request: Request<ListCoordinatorsRequest>,
    ) -> Result<Response<ListCoordinatorsResponse>, Status> {
        self.answer(request, self.coordinators.clone())
    }

    async fn get_error_table(
        &self,
        request: Request<GetErrorTableRequest>,
    ) -> Result<Response<GetErrorTableResponse>, Status> {
        self.answer(request, self.table.clone())
    }

    async fn run_doctor(
        &self,
        request: Request<RunDoctorRequest>,
    ) -> Result<Response<RunDoctorResponse>, Status> {
        self.answer(request, self.doctor.clone())
    }

    async fn release_saga(
        &self,
        request: Request<ReleaseSagaRequest>,
    ) -> Result<Response<ReleaseSagaResponse>, Status> {
        self.answer(request, ReleaseSagaResponse { saga: Some(self.saga.clone()) })
    }

    async fn get_overview(
        &self,
        request: Request<GetOverviewRequest>,
    ) -> Result<Response<GetOverviewResponse>, Status> {
        self.answer(request, self.overview.clone())
    }
}
