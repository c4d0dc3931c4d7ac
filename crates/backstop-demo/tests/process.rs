//! A service as the process that it is in the demo. Not run by the test harness: this program plays the
//! service itself when it is told to, as the `backstop` binary does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

use backstop_demo::bank::ledger as pb;
use backstop_demo::bank::ledger::ledger_service_client::LedgerServiceClient;
use backstop_demo::{DemoError, DemoOptions, Screen, ServiceKind, ServiceSpec, run_demo, run_service};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use tonic::Request;
use tonic::transport::Endpoint;

#[tokio::main]
async fn main() {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|arg| arg == "demo-service").is_some() {
        run_service(ServiceSpec::from_args(args).unwrap()).await.unwrap();
        return;
    }
    if args.next_if(|arg| arg == "serve").is_some() {
        eprintln!("no store today");
        std::process::exit(7);
    }
    // Listed by tools that look for tests; there are none of the harness's kind.
    if args.any(|arg| arg == "--list") {
        return;
    }
    a_killed_ledger_comes_back_on_its_port_and_gives_the_answer_it_gave().await;
    println!("test a_killed_ledger_comes_back_on_its_port_and_gives_the_answer_it_gave ... ok");
    a_service_ends_when_the_demo_that_holds_its_input_is_gone();
    println!("test a_service_ends_when_the_demo_that_holds_its_input_is_gone ... ok");
    a_demo_whose_coordinator_does_not_start_says_why_and_leaves_no_process().await;
    println!("test a_demo_whose_coordinator_does_not_start_says_why_and_leaves_no_process ... ok");
}

fn start(spec: &ServiceSpec) -> (Child, SocketAddr) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("demo-service")
        .args(spec.to_args())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.strip_prefix("listening ").expect("the one line").trim().parse().unwrap();
    (child, address)
}

fn ledger(db: std::path::PathBuf) -> ServiceSpec {
    let kind = ServiceKind::Ledger { db, accounts: None, chaos: false };
    let listen = "127.0.0.1:0".parse().unwrap();
    ServiceSpec { kind, name: "ledger_a".into(), listen, any_address: false, stop_at_stdin_end: true }
}

async fn debit(address: SocketAddr) -> pb::DebitResponse {
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut client = LedgerServiceClient::new(channel);
    let account =
        pb::OpenAccountRequest { account: "ann".into(), currency: "EUR".into(), opening_minor: 100 };
    client.open_account(account).await.unwrap();
    let mut request = Request::new(pb::DebitRequest {
        transfer_id: "t-1".into(),
        account: "ann".into(),
        amount_minor: 40,
        currency: "EUR".into(),
        ..pb::DebitRequest::default()
    });
    request.metadata_mut().insert("idempotency-key", "k-1".parse().unwrap());
    client.debit(request).await.unwrap().into_inner()
}

async fn a_killed_ledger_comes_back_on_its_port_and_gives_the_answer_it_gave() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = ledger(dir.path().join("ledger.db"));
    let (mut child, address) = start(&spec);
    let answer = debit(address).await;
    assert_eq!(answer.available_minor, 60);
    child.kill().unwrap();
    child.wait().unwrap();
    spec.listen = address;
    let (mut child, again) = start(&spec);
    assert_eq!(again, address);
    assert_eq!(debit(address).await, answer);
    child.kill().unwrap();
    child.wait().unwrap();
}

fn a_service_ends_when_the_demo_that_holds_its_input_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, _) = start(&ledger(dir.path().join("ledger.db")));
    assert!(child.try_wait().unwrap().is_none(), "runs while the input is open");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

async fn a_demo_whose_coordinator_does_not_start_says_why_and_leaves_no_process() {
    let dir = tempfile::tempdir().unwrap();
    let options = || DemoOptions {
        program: std::env::current_exe().unwrap(),
        serve_args: Vec::new(),
        definition: backstop_proto::v1::Definition::default(),
        dir: Some(dir.path().to_owned()),
        transfers: None,
        accounts: None,
        exit: true,
        screen: Screen::plain(Box::new(std::io::sink())),
    };
    let error = run_demo(options()).await.unwrap_err();
    let DemoError::NotReady { name, why, log } = &error else { panic!("{error}") };
    assert_eq!((name.as_str(), log.as_str()), ("coordinator", "no store today"));
    assert!(why.contains("exit status: 7"), "{why}");
    // The services had started: each has its file. None of them runs any more.
    assert!(dir.path().join("ledger_b.db").exists());
    assert_eq!(processes_of(dir.path()), Vec::<String>::new());
    let again = run_demo(options()).await.unwrap_err();
    assert!(matches!(again, DemoError::NotEmpty(_)), "{again}");
}

/// Command lines of other processes that name the directory.
fn processes_of(dir: &std::path::Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(dir))
        .collect()
}
