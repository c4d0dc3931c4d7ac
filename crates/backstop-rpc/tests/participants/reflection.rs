//! Message types from a participant's own reflection, of either version, and from a given set.

use crate::fixture::{self, call, spec, step};
use crate::peer::{Peer, answer_status};
use crate::world::participant;
use backstop_core::{DefinitionSpec, Fault};
use backstop_engine::ports::participants::Participants;
use backstop_rpc::participants::{GatherError, ParticipantClient, ParticipantSettings, check};
use prost::Message;
use prost_types::FileDescriptorSet;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

struct Reflecting {
    endpoint: String,
    task: JoinHandle<()>,
}

impl Drop for Reflecting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn reflecting(v1: bool, files: FileDescriptorSet) -> Reflecting {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let builder = tonic_reflection::server::Builder::configure().register_file_descriptor_set(files);
    let mut server = Server::builder();
    let router = match v1 {
        true => server.add_service(builder.build_v1().unwrap()),
        false => server.add_service(builder.build_v1alpha().unwrap()),
    };
    let task =
        tokio::spawn(
            async move { router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() },
        );
    Reflecting { endpoint, task }
}

fn client(endpoints: &[String]) -> ParticipantClient {
    let client = ParticipantClient::new(ParticipantSettings::default());
    client.set(&participant(endpoints));
    client
}

fn transfer() -> DefinitionSpec {
    spec(vec![step(
        "debit",
        &[],
        r#"{"amount_minor": "5", "money": {"minor": 7}, "at": "2026-11-23T00:00:00Z"}"#,
    )])
}

fn names(set: &[u8]) -> Vec<String> {
    FileDescriptorSet::decode(set).unwrap().file.iter().map(|file| file.name().to_owned()).collect()
}

#[tokio::test]
async fn both_versions_of_reflection_and_a_given_set_give_the_same_canonical_bytes() {
    let (v1, v1alpha) = (reflecting(true, fixture::files()).await, reflecting(false, fixture::files()).await);
    let from_v1 = client(std::slice::from_ref(&v1.endpoint)).gather(&transfer(), None).await.unwrap();
    let from_v1alpha =
        client(std::slice::from_ref(&v1alpha.endpoint)).gather(&transfer(), None).await.unwrap();
    let mut given = fixture::files();
    given.file.reverse();
    let from_given = client(&[]).gather(&transfer(), Some(given)).await.unwrap();
    assert_eq!(from_v1, from_v1alpha);
    assert_eq!(from_v1, from_given);

    let files = names(&from_v1);
    assert_eq!(files.last().unwrap(), "bank.proto", "each after its imports");
    assert!(files.contains(&"money.proto".to_owned()));
    assert!(!files.contains(&"unused.proto".to_owned()), "nobody needs it");
    let comments = FileDescriptorSet::decode(from_v1.as_ref()).unwrap();
    assert!(comments.file.iter().all(|file| file.source_code_info.is_none()));
    assert_eq!(check(&transfer(), &from_v1), []);
}

#[tokio::test]
async fn a_dead_endpoint_beside_a_live_one_does_not_keep_reflection_from_answering() {
    let live = reflecting(true, fixture::files()).await;
    let endpoints = [crate::peer::dead_endpoint().await, live.endpoint.clone()];
    assert!(client(&endpoints).gather(&transfer(), None).await.is_ok());
}

#[tokio::test]
async fn well_known_imports_that_nobody_told_are_known() {
    let mut given = fixture::files();
    given.file.retain(|file| !file.name().starts_with("google/"));
    let whole = client(&[]).gather(&transfer(), Some(given)).await.unwrap();
    assert!(names(&whole).contains(&"google/protobuf/struct.proto".to_owned()));
    assert_eq!(check(&transfer(), &whole), []);
}

fn faults(result: Result<bytes::Bytes, GatherError>) -> Vec<Fault> {
    match result {
        Err(GatherError::Faults { faults, .. }) => faults,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn methods_that_do_not_exist_or_stream_are_faults_with_their_paths() {
    let mut definition = transfer();
    definition.steps.push(step("b", &[], ""));
    definition.steps[0].action = call("Debiit", "");
    definition.steps[0].compensation = Some(call("Watch", ""));
    definition.steps[1].action.method = "bank.v1.Leger/Debit".to_owned();
    definition.steps[1].compensation = Some(call("Upload", ""));
    let paths = |faults: &[Fault]| faults.iter().map(|fault| fault.path.clone()).collect::<Vec<_>>();
    let given = faults(client(&[]).gather(&definition, Some(fixture::files())).await);
    assert_eq!(
        paths(&given),
        [
            "steps[0].action.method",
            "steps[0].compensation.method",
            "steps[1].action.method",
            "steps[1].compensation.method"
        ]
    );
    assert!(given[0].description.contains("no method \"Debiit\""), "{}", given[0]);
    assert!(given[1].description.contains("streaming"), "{}", given[1]);

    let server = reflecting(true, fixture::files()).await;
    let told = faults(client(std::slice::from_ref(&server.endpoint)).gather(&definition, None).await);
    assert_eq!(told[0].path, "steps[1].action.method");
    assert!(told[0].description.contains("no service \"bank.v1.Leger\""), "{}", told[0]);
}

#[tokio::test]
async fn files_of_one_name_and_different_content_are_a_fault() {
    let mut given = fixture::files();
    let mut other = given.file.iter().find(|file| file.name() == "money.proto").unwrap().clone();
    other.message_type[0].field.pop();
    given.file.push(other);
    let found = faults(client(&[]).gather(&transfer(), Some(given)).await);
    assert!(found[0].description.contains("\"money.proto\" differs"), "{}", found[0]);
}

#[tokio::test]
async fn a_file_may_come_from_two_compilers_of_which_one_leaves_the_usual_json_names_out() {
    let json_names = |file: &mut prost_types::FileDescriptorProto, change: fn(&mut Option<String>)| {
        let fields = file.message_type.iter_mut().flat_map(|message| &mut message.field);
        fields.for_each(|field| change(&mut field.json_name));
    };
    let mut given = fixture::files();
    let mut silent = given.file.iter().find(|file| file.name() == "money.proto").unwrap().clone();
    json_names(&mut silent, |name| assert!(name.take().is_some(), "this compiler writes them down"));
    given.file.push(silent.clone());
    client(&[]).gather(&transfer(), Some(given.clone())).await.unwrap();
    json_names(&mut silent, |name| *name = Some("odd".to_owned()));
    given.file.push(silent);
    let found = faults(client(&[]).gather(&transfer(), Some(given)).await);
    assert!(found[0].description.contains("\"money.proto\" differs"), "{}", found[0]);
}

#[tokio::test]
async fn an_import_that_nobody_has_is_a_fault_and_not_a_panic() {
    let mut given = fixture::files();
    given.file.retain(|file| file.name() != "money.proto");
    assert_eq!(faults(client(&[]).gather(&transfer(), Some(given)).await).len(), 1);
}

#[tokio::test]
async fn reflection_that_cannot_be_reached_or_does_not_exist_names_the_participant() {
    let dead = client(&[crate::peer::dead_endpoint().await]).gather(&transfer(), None).await.unwrap_err();
    let GatherError::Unreachable { participant, message } = &dead else { panic!("{dead:?}") };
    assert_eq!(participant, "ledger");
    assert!(message.starts_with("UNAVAILABLE"), "{message}");

    let without = Peer::answering(|respond| answer_status(respond, &[("grpc-status", "12")])).await;
    let error = client(&[without.endpoint()]).gather(&transfer(), None).await.unwrap_err();
    assert!(error.to_string().contains("neither v1 nor v1alpha"), "{error}");
    let asked: Vec<String> =
        without.seen.requests.lock().unwrap().iter().map(|heard| heard.path.clone()).collect();
    assert_eq!(asked.len(), 2);
    assert!(asked[0].contains(".v1.") && asked[1].contains(".v1alpha."), "{asked:?}");
}

#[tokio::test]
async fn a_participant_that_nobody_registered_is_a_fault() {
    let nobody = ParticipantClient::new(ParticipantSettings::default());
    let found = faults(nobody.gather(&transfer(), None).await);
    assert_eq!(found[0].path, "steps[0].action.participant");
}
