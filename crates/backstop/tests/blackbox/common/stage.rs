//! The bank of the examples as real processes: two ledgers, risk and audit, each `backstop demo-service`, beside a
//! coordinator on SQLite. Pages name the ports that `examples/transfer/README.md` names; here any free ones are taken.

use super::server::BINARY;
use super::{Backstop, Engine, tool};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};

/// The coordinator's address in the pages.
pub(crate) const COORDINATOR: &str = "127.0.0.1:7420";
/// The services, their address in the pages, and what only they need.
const SERVICES: [(&str, &str, &[&str]); 4] = [
    ("ledger_a", "127.0.0.1:7431", &["ledger", "--chaos", "--db"]),
    ("ledger_b", "127.0.0.1:7432", &["ledger", "--chaos", "--db"]),
    ("risk", "127.0.0.1:7433", &["risk", "--limit-minor", "1000000"]),
    ("audit", "127.0.0.1:7434", &["audit", "--db"]),
];

/// All of it; it ends when it is dropped.
pub(crate) struct Stage {
    pub(crate) backstop: Backstop,
    /// Where files of a page are.
    pub(crate) folder: tempfile::TempDir,
    services: Vec<Service>,
}

struct Service {
    page: &'static str,
    real: String,
    child: Child,
    /// Held open: the service ends when this does.
    _stdin: Option<ChildStdin>,
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Stage {
    /// Nothing is registered and no account is open yet.
    pub(crate) async fn bare() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let services = SERVICES.iter().map(|(name, page, own)| service(&folder, name, page, own)).collect();
        Self { backstop: Backstop::start(Engine::Sqlite).await, folder, services }
    }

    /// A text of a page with the real addresses in it.
    pub(crate) fn real(&self, text: &str) -> String {
        let text = text.replace(COORDINATOR, self.backstop.address());
        self.services.iter().fold(text, |text, service| text.replace(service.page, &service.real))
    }

    /// A text that was printed, with the page's addresses in it.
    pub(crate) fn as_in_page(&self, text: &str) -> String {
        let text = text.replace(self.backstop.address(), COORDINATOR);
        self.services.iter().fold(text, |text, service| text.replace(&service.real, service.page))
    }

    /// Has a shell run a line of a page, as from a terminal in the stage's folder.
    pub(crate) fn shell(&self, line: &str) -> std::process::Output {
        let folder_of = |program: std::path::PathBuf| program.parent().unwrap().display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{}:{path}", folder_of(BINARY.into()), folder_of(tool::grpcurl()));
        let mut command = Command::new("timeout");
        command.args(["60", "sh", "-c", &self.real(line)]).current_dir(self.folder.path()).env_clear();
        command
            .env("PATH", path)
            .env("USER", "ann")
            .env("BACKSTOP_SERVER", format!("http://{}", self.backstop.address()));
        tool::run(&mut command)
    }

    /// What `examples/transfer` says: its participants, its accounts and its definition.
    pub(crate) fn open_the_bank(&self) {
        let example = |file: &str| super::page::text(&format!("examples/transfer/{file}"));
        let participants: serde_json::Value = serde_json::from_str(&example("participants.json")).unwrap();
        for participant in participants.as_array().unwrap() {
            let data = serde_json::json!({ "participant": participant });
            self.do_it(&format!(
                "grpcurl -plaintext -d '{data}' {COORDINATOR} backstop.v1.ParticipantService/RegisterParticipant"
            ));
        }
        for account in example("accounts.csv").lines().skip(1) {
            let fields: Vec<&str> = account.split(',').collect();
            let page = SERVICES.iter().find(|(name, ..)| *name == fields[0]).unwrap().1;
            let data = serde_json::json!({ "account": fields[1], "currency": fields[2], "opening_minor": fields[3] });
            self.do_it(&format!(
                "grpcurl -plaintext -d '{data}' {page} bank.ledger.v1.LedgerService/OpenAccount"
            ));
        }
        std::fs::write(self.folder.path().join("transfer.yaml"), example("transfer.yaml")).unwrap();
        self.do_it("backstop definition register transfer.yaml");
    }

    /// A partner bank's gateway is at this address of the page, or where nobody listens.
    pub(crate) fn partner(&self, address: Option<&str>) {
        let address = address.unwrap_or("127.0.0.1:1");
        self.do_it(&format!(
            "backstop participant register partner --endpoint http://{address} --deduplicates-by-key"
        ));
    }

    fn do_it(&self, line: &str) {
        let output = self.shell(line);
        assert!(output.status.success(), "{line}\n{}", tool::said(&output));
    }
}

fn service(folder: &tempfile::TempDir, name: &str, page: &'static str, own: &[&str]) -> Service {
    let mut command = Command::new(BINARY);
    command.arg("demo-service").args(own);
    if own.last() == Some(&"--db") {
        command.arg(folder.path().join(format!("{name}.db")));
    }
    command.args(["--name", name, "--listen", "127.0.0.1:0", "--stop-at-stdin-end"]);
    command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the binary starts");
    let stdin = child.stdin.take();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let real =
        lines.find_map(|line| line.strip_prefix("listening ").map(|address| address.trim().to_owned()));
    let real = real.unwrap_or_else(|| panic!("{name} ended before it listened"));
    // What it says later is nobody's business, but it must not wait for a reader.
    std::thread::spawn(move || lines.for_each(drop));
    Service { page, real, child, _stdin: stdin }
}
