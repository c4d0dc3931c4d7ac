//! Stories of definition files on their way to the server.

use super::canned::Canned;
use super::fixtures::at;
use super::run;
use crate::cli::Exit;
use backstop_proto::v1::simulate_definition_response::{Run, run::Fault};
use backstop_proto::v1::{Definition, SagaState, SimulateDefinitionResponse, Step};
use tonic::Status;
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

#[tokio::test]
async fn a_definition_is_registered_shown_listed_and_simulated() {
    let dir = std::env::temp_dir().join(format!("backstop-cli-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&dir).unwrap();
    let path = dir.join("transfer.yaml");
    std::fs::write(&path, "name: transfer\nsteps:\n- name: debit\n  depends_on: [x]\n").unwrap();
    let file = path.to_str().unwrap();
    let steps = vec![Step { name: "debit".to_owned(), ..Step::default() }];
    let definition = Definition {
        name: "transfer".to_owned(),
        revision: 3,
        steps,
        create_time: at(0),
        ..Definition::default()
    };
    let simulation = SimulateDefinitionResponse {
        runs: vec![
            Run {
                end_state: SagaState::Succeeded.into(),
                calls: vec!["debit/action".to_owned()],
                ..Run::default()
            },
            Run {
                step: "debit".to_owned(),
                fault: Fault::NoAnswer.into(),
                end_state: SagaState::NeedsIntervention.into(),
                calls: vec!["debit/action".to_owned(), "debit/compensation".to_owned()],
                transcript: vec!["0001 saga     started".to_owned()],
            },
        ],
        interventions: vec!["debit: NO_ANSWER".to_owned()],
    };
    let server = Canned { definition, simulation, created: true, ..Canned::default() }.serve().await;

    let ran = run(&server.url, &["definition", "register", file]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, "transfer@3 is registered\n"));
    assert!(server.asked()[0].contains("depends_on: [\"x\"]"));
    let ran = run(&server.url, &["definition", "register", file, "--validate-only"]).await;
    assert_eq!(ran.out, "transfer@3 would be valid; nothing was stored\n");
    let ran = run(&server.url, &["definition", "show", "transfer@3"]).await;
    assert_eq!(
        ran.out,
        "# transfer@3, registered 2026-11-24T00:00:00Z\nname: transfer\nsteps:\n  - name: debit\n"
    );
    let ran = run(&server.url, &["definition", "list"]).await;
    assert!(
        ran.out.lines().nth(1).unwrap().starts_with("transfer@3  1      2026-11-24T00:00:00Z  -"),
        "{}",
        ran.out
    );
    let ran = run(&server.url, &["definition", "simulate", "--file", file, "--transcripts"]).await;
    insta::assert_snapshot!(ran.out, @r#"
FAILS    HOW        ENDS                CALLED  UNDONE
nothing  -          SUCCEEDED           debit   -
debit    no answer  NEEDS_INTERVENTION  debit   debit

nothing fails

debit: no answer
  0001 saga     started

1 of 2 runs need a person:
  debit: no answer
    no answer of a COMPENSATABLE step leaves what the machine cannot settle
"#);
    let ran = run(&server.url, &["definition", "simulate", "transfer", "--mermaid"]).await;
    insta::assert_snapshot!(ran.out, @r#"
%% transfer@3
flowchart TD
  n0["debit"]:::plain
  classDef plain fill:#f5f5f5,stroke:#616161,color:#212121
"#);
    let args = ["definition", "simulate", "transfer", "--step", "debit", "--fault", "no-answer", "--mermaid"];
    let ran = run(&server.url, &args).await;
    insta::assert_snapshot!(ran.out, @r#"
%% transfer: debit, no answer
sequenceDiagram
  participant B as Backstop
  participant P0 as debit
  B->>P0: debit action
  B->>P0: debit compensation
  Note over B: NEEDS_INTERVENTION
"#);
    let ran = run(&server.url, &["definition", "simulate", "transfer", "--step", "nowhere"]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.err.contains("transfer has no step nowhere"), "{}", ran.err);
    let ran = run(&server.url, &["definition", "show", "transfer", "--dot"]).await;
    assert!(ran.out.starts_with("digraph \"transfer@3\" {\n"), "{}", ran.out);
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_faulty_definition_shows_file_line_and_path_whoever_finds_the_fault() {
    let dir = std::env::temp_dir().join(format!("backstop-cli-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&dir).unwrap();
    let path = dir.join("transfer.yaml");
    let file = path.to_str().unwrap();
    std::fs::write(&path, "name: transfer\nsteps:\n- name: debit\n  kind: SOFT\n").unwrap();
    // Nobody listens there: faults of shape need no server.
    let ran = run("http://127.0.0.1:1", &["definition", "register", file]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.err.starts_with(&format!("{file}:4:9  steps[0].kind: there is no SOFT;")), "{}", ran.err);
    assert!(ran.err.ends_with("has 1 fault\n"), "{}", ran.err);

    std::fs::write(&path, "name: transfer\nsteps:\n- name: debit\n  depends_on: [x]\n").unwrap();
    let mut details = ErrorDetails::new();
    details.set_bad_request(vec![FieldViolation::new("steps[0].depends_on[0]", "there is no step \"x\"")]);
    let refusal =
        Status::with_error_details(tonic::Code::InvalidArgument, "the definition has 1 fault", details);
    let server = Canned { refusal: Some(refusal), ..Canned::default() }.serve().await;
    for verb in [vec!["register", file], vec!["simulate", "--file", file]] {
        let ran = run(&server.url, &[["definition"].as_slice(), &verb].concat()).await;
        assert_eq!(ran.exit, Exit::Failed);
        let expected = format!(
            "{file}:4:16  steps[0].depends_on[0]: there is no step \"x\"\nerror: {file} has 1 fault\n"
        );
        assert!(ran.err.starts_with(&expected), "{}", ran.err);
    }
    std::fs::remove_dir_all(dir).unwrap();
}
