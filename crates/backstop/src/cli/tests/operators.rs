//! Stories of participants, coordinators, the doctor, and of servers that are not there.

use super::canned::Canned;
use super::fixtures::{at, rolled_back};
use super::{run, wrong_usage};
use crate::cli::Exit;
use backstop_proto::v1::failure::Effect;
use backstop_proto::v1::run_doctor_response::{Finding, finding::Kind};
use backstop_proto::v1::{
    BreakerState, GetErrorTableResponse, ListCoordinatorsResponse, Participant, RunDoctorResponse, Saga,
    SagaState, Tier, get_error_table_response, list_coordinators_response,
};
use tonic::Status;

#[tokio::test]
async fn participants_are_registered_and_shown_with_their_breakers() {
    let ledger = Participant {
        name: "ledger".to_owned(),
        endpoints: vec!["http://a:1".to_owned(), "http://b:1".to_owned()],
        deduplicates_by_key: true,
        breaker_state: BreakerState::Open.into(),
        in_flight: 7,
        update_time: at(0),
        ..Participant::default()
    };
    let server = Canned { participants: vec![ledger], ..Canned::default() }.serve().await;
    let args = [
        "participant",
        "register",
        "ledger",
        "--endpoint",
        "http://a:1",
        "http://b:1",
        "--deduplicates-by-key",
        "--in-flight-max",
        "9",
        "--keepalive",
        "10m",
    ];
    let ran = run(&server.url, &args).await;
    assert_eq!(ran.out, "participant ledger is registered\n");
    let asked = &server.asked()[0];
    for part in [
        "[\"http://a:1\", \"http://b:1\"]",
        "deduplicates_by_key: true",
        "rollback_listener: false",
        "in_flight_max: 9",
        "seconds: 600",
    ] {
        assert!(asked.contains(part), "{asked}");
    }
    let ran = run(&server.url, &["participant", "list"]).await;
    assert_eq!(
        ran.out.lines().nth(1).unwrap(),
        "ledger  OPEN     7          yes           no       http://a:1 http://b:1"
    );
    let ran = run(&server.url, &["participant", "show", "ledger"]).await;
    assert!(
        ran.out.contains("in flight   7 (at most the coordinator's default)\nbreaker     OPEN\n"),
        "{}",
        ran.out
    );
}

#[tokio::test]
async fn coordinators_and_the_error_table_are_tables() {
    let coordinator = list_coordinators_response::Coordinator {
        id: "c-1".to_owned(),
        address: "127.0.0.1:7420".to_owned(),
        start_time: at(0),
        lease_expire_time: at(5_000),
        expired: true,
    };
    let row = get_error_table_response::Row {
        grpc_code: "INTERNAL".to_owned(),
        effect: Effect::InDoubt.into(),
        fin_code: "FIN-50001".to_owned(),
        tier: Tier::L1.into(),
        http_status: 500,
        retried: false,
        overridden: true,
    };
    let server = Canned {
        coordinators: ListCoordinatorsResponse { coordinators: vec![coordinator] },
        table: GetErrorTableResponse { domain: "payment".to_owned(), rows: vec![row] },
        ..Canned::default()
    }
    .serve()
    .await;
    let ran = run(&server.url, &["coordinator", "list"]).await;
    let line = "c-1  127.0.0.1:7420  expired  2026-11-24T00:00:05Z  2026-11-24T00:00:00Z";
    assert_eq!(ran.out.lines().nth(1).unwrap(), line);
    let ran = run(&server.url, &["error-table", "payment"]).await;
    assert_eq!(ran.out.lines().next().unwrap(), "domain payment");
    assert_eq!(
        ran.out.lines().nth(2).unwrap(),
        "INTERNAL  in doubt  FIN-50001  L1    500   no       configured"
    );
}

#[tokio::test]
async fn the_doctor_names_what_it_found_and_that_is_a_failure() {
    let server = Canned::default().serve().await;
    let ran = run(&server.url, &["doctor"]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, "nothing found; 0 journals replayed\n"));
    let finding = Finding {
        kind: Kind::SagaForsaken.into(),
        subject: "pay-7".to_owned(),
        detail: "RUNNING without owner and wake-up time".to_owned(),
    };
    let doctor = RunDoctorResponse { findings: vec![finding], journals_replayed: 12, truncated: false };
    let server = Canned { doctor, ..Canned::default() }.serve().await;
    let ran = run(&server.url, &["doctor", "--full"]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert_eq!(
        ran.out,
        "FINDING        ABOUT  DETAIL\n\
         saga forsaken  pay-7  RUNNING without owner and wake-up time\n\n\
         1 found; 12 journals replayed\n"
    );
}

#[tokio::test]
async fn a_saga_in_quarantine_says_what_a_person_is_to_do() {
    let saga = Saga {
        id: "pay-7".to_owned(),
        state: SagaState::NeedsIntervention.into(),
        quarantine: "event 3 does not fit".to_owned(),
        ..Saga::default()
    };
    let server = Canned { saga, ..Canned::default() }.serve().await;
    let ran = run(&server.url, &["saga", "show", "pay-7"]).await;
    assert!(ran.out.contains("event 3 does not fit"), "{}", ran.out);
    assert!(ran.out.contains("backstop saga release pay-7 --reason"), "{}", ran.out);
}

#[tokio::test]
async fn json_prints_the_answer_in_protobufs_mapping() {
    let server = Canned { saga: rolled_back(), ..Canned::default() }.serve().await;
    let ran = run(&server.url, &["saga", "show", "pay-7", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["saga"]["state"], "SAGA_STATE_ROLLED_BACK");
    assert_eq!(json["saga"]["cause"]["failure"]["fieldViolations"][0]["field"], "account");
    assert!(!ran.out.contains('\u{1b}'));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_the_way_to_start_one() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ran = run(&free.to_string(), &["saga", "show", "pay-7"]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(
        ran.err.starts_with(&format!("error: no Backstop server answers at http://{free}: ")),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("refused") && ran.err.contains("`backstop serve`"), "{}", ran.err);
    let ran = run("ftp://here", &["saga", "show", "pay-7"]).await;
    assert!(ran.err.contains("ftp://here is no address of a server"), "{}", ran.err);
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_asked() {
    assert!(wrong_usage(&["saga", "start", "transfer@x"]).contains("NAME@REVISION"));
    assert!(wrong_usage(&["saga", "start", "transfer", "--wait", "30"]).contains("unit"));
    assert!(wrong_usage(&["saga", "start", "transfer", "--label", "x"]).contains("KEY=VALUE"));
    assert!(wrong_usage(&["saga", "list", "--state", "lost"]).contains("needs-intervention"));
    assert!(wrong_usage(&["branch", "retry", "pay-7", "debit"]).contains("--reason"));
    assert!(wrong_usage(&["participant", "register", "ledger"]).contains("--endpoint"));
    assert!(wrong_usage(&["definition", "simulate"]).contains("NAME[@REV]"));
}
