//! dtmrs (crates.io), which is DTM's idea in Rust: its own coordinator with its own settings, in `peers/dtmrs`.

use super::http::Client;
use super::programs::pid;
use super::wish::DtmrsStore;
use super::{BRANCHES, Counted, Ground, Peer, UNDO, Way};
use crate::process::Process;
use anyhow::{Result, bail};
use hyper::{Method, Uri};
use serde_json::json;
use std::net::SocketAddr;

pub(super) struct Dtmrs {
    store: DtmrsStore,
    database: Option<String>,
    process: Process,
    pid: u32,
    client: Client,
    run: Uri,
    ends: String,
    participants: [SocketAddr; BRANCHES],
}

impl Dtmrs {
    pub(super) async fn start(store: DtmrsStore, ground: &Ground<'_>) -> Result<Self> {
        let mut settings = vec![("RUST_LOG", "warn".to_owned())];
        let (url, database) = match store {
            DtmrsStore::Postgres => {
                let (url, database) = ground.database()?;
                (url, Some(database))
            }
            DtmrsStore::SqliteNormal | DtmrsStore::SqliteFull => {
                if store == DtmrsStore::SqliteFull {
                    settings.push(("PEER_SQLITE_SYNCHRONOUS", "FULL".to_owned()));
                }
                (format!("sqlite:{}", ground.folder.join(format!("{store:?}.db")).display()), None)
            }
        };
        let process = ground.programs.run("peer-dtmrs", vec![url], settings).await?;
        let address = process.address()?;
        Ok(Self {
            store,
            database,
            pid: pid(&process).await?,
            process,
            client: Client::new(),
            run: format!("http://{address}/run").parse()?,
            ends: format!("http://{address}/ends"),
            participants: ground.participants,
        })
    }
}

#[tonic::async_trait]
impl Peer for Dtmrs {
    fn name(&self) -> String {
        match self.store {
            DtmrsStore::Postgres => "dtmrs, Postgres",
            DtmrsStore::SqliteNormal => "dtmrs, SQLite NORMAL",
            DtmrsStore::SqliteFull => "dtmrs, SQLite FULL",
        }
        .to_owned()
    }

    fn said(&self, way: Way) -> String {
        let durable = match self.store {
            DtmrsStore::Postgres => "the same Postgres cluster, fsync and synchronous_commit on",
            DtmrsStore::SqliteNormal => {
                "SQLite with synchronous = NORMAL, its own setting: a power cut may take acknowledged sagas along"
            }
            DtmrsStore::SqliteFull => {
                "SQLite with synchronous = FULL, which it has no setting for and was given"
            }
        };
        let order = match way {
            Way::Concurrent => "its branches are called one after the other: it knows no other way; ",
            Way::Sequential => "",
            Way::RolledBack => "one after the other; the refused third branch is compensated too; ",
        };
        format!(
            "{order}gRPC to the same participants with empty messages, since it sends gRPC no payload; the client is \
             told of the end without asking again and again; {durable}"
        )
    }

    fn can(&self, _: Way) -> bool {
        true
    }

    fn processes(&self) -> Vec<(&'static str, u32)> {
        vec![("dtmrs", self.pid)]
    }

    fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    async fn run_one(&self, id: &str, way: Way) -> Result<bool> {
        let steps = self.participants.iter().enumerate().map(|(branch, address)| {
            let (action, undo) = (way.action(branch), UNDO);
            json!({ "action": format!("grpc://{address}/{action}"), "compensate": format!("grpc://{address}/{undo}") })
        });
        let body = json!({ "gid": id, "steps": steps.collect::<Vec<_>>() }).to_string();
        let (status, _) = self.client.ask(Method::POST, self.run.clone(), body).await?;
        // How it ended is not in the answer: `check` asks its books.
        Ok(status.is_success())
    }

    async fn check(&self, counted: Counted) -> Result<()> {
        let answer = self.client.fetch(Method::GET, &self.ends, String::new()).await?;
        let ends: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&answer)?;
        let of = |state: &str| ends.get(state).and_then(serde_json::Value::as_u64).unwrap_or(0);
        let booked = Counted { succeeded: of("succeed"), rolled_back: of("failed") };
        let all: u64 = ends.values().filter_map(serde_json::Value::as_u64).sum();
        if booked != counted || all != counted.succeeded + counted.rolled_back {
            bail!("counted {counted:?}, its books say {ends:?}");
        }
        Ok(())
    }

    async fn end(&self) -> Result<()> {
        self.process.kill().await
    }
}
