//! Each service shows itself to anybody who asks: health, and reflection of its own API alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use backstop_demo::bank::ledger::GetBalancesRequest;
use backstop_demo::bank::ledger::ledger_service_client::LedgerServiceClient;
use backstop_demo::bank::risk::CheckRequest;
use backstop_demo::bank::risk::risk_service_client::RiskServiceClient;
use backstop_demo::{ServiceKind, ServiceSpec, service};
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

struct Running {
    channel: Channel,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), backstop_demo::ServiceError>>,
}

async fn start(kind: ServiceKind) -> Running {
    start_named("it", kind).await
}

async fn start_named(name: &str, kind: ServiceKind) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = listener.local_addr().unwrap();
    let spec = ServiceSpec { kind, name: name.into(), listen, any_address: false, stop_at_stdin_end: false };
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    let task = tokio::spawn(async move { service::serve(&spec, listener, token).await });
    let channel = Endpoint::from_shared(format!("http://{listen}")).unwrap().connect().await.unwrap();
    Running { channel, shutdown, task }
}

async fn ask(channel: Channel, question: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let answer: ServerReflectionResponse = answers.next().await.unwrap().unwrap();
    answer.message_response.unwrap()
}

#[tokio::test]
async fn a_ledger_shows_its_own_api_and_the_listener_and_nothing_else_of_backstop() {
    let dir = tempfile::tempdir().unwrap();
    let running =
        start(ServiceKind::Ledger { db: dir.path().join("l.db"), accounts: None, chaos: false }).await;
    let answer = ask(running.channel.clone(), MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "backstop.participant.v1.RollbackListenerService",
            "bank.ledger.v1.LedgerService",
            "grpc.health.v1.Health",
        ]
    );
    let symbol = MessageRequest::FileContainingSymbol("bank.ledger.v1.LedgerService".into());
    assert!(matches!(ask(running.channel.clone(), symbol).await, MessageResponse::FileDescriptorResponse(_)));
    let check = tonic_health::pb::HealthCheckRequest { service: "bank.ledger.v1.LedgerService".into() };
    let health = HealthClient::new(running.channel.clone()).check(check).await.unwrap();
    assert_eq!(health.into_inner().status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
    running.shutdown.cancel();
    running.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_service_that_is_told_to_end_ends_although_a_client_stays_connected() {
    let running = start(ServiceKind::Risk { limit_minor: 10 }).await;
    let mut risk = RiskServiceClient::new(running.channel.clone());
    let request = CheckRequest {
        transfer_id: "t".into(),
        from_account: "a".into(),
        to_account: "b".into(),
        amount_minor: 10,
        currency: "EUR".into(),
    };
    assert_eq!(risk.check(request.clone()).await.unwrap().into_inner().decision_id, "risk-t");
    running.shutdown.cancel();
    running.task.await.unwrap().unwrap();
    assert!(risk.check(request).await.is_err());
}

#[tokio::test]
async fn a_ledger_opens_the_accounts_of_its_file_once_and_those_of_no_other_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("accounts.csv");
    let kind =
        || ServiceKind::Ledger { db: dir.path().join("l.db"), accounts: Some(file.clone()), chaos: false };
    let balances = async |running: &Running| {
        let mut client = LedgerServiceClient::new(running.channel.clone());
        let accounts =
            client.get_balances(GetBalancesRequest::default()).await.unwrap().into_inner().accounts;
        accounts.into_iter().map(|a| (a.account, a.available_minor)).collect::<Vec<_>>()
    };
    // The second time the file says something else about an account that is there: it stays as it is.
    for opening in [500, 700] {
        let text = format!(
            "ledger,account,currency,opening_minor\nledger_a,ann,EUR,{opening}\nledger_b,bob,EUR,{opening}\n"
        );
        std::fs::write(&file, text).unwrap();
        let running = start_named("ledger_a", kind()).await;
        assert_eq!(balances(&running).await, [("ann".to_owned(), 500)]);
        running.shutdown.cancel();
        running.task.await.unwrap().unwrap();
    }
}
