//! dtmrs (crates.io), which is DTM's idea in Rust: its own coordinator with its own settings, in `peers/dtmrs`.

use super::counted::Counted;
use super::http::Client;
use super::programs::{Programs, group};
use super::wish::Durability;
use super::{BRANCHES, NOT_SUCH, UNDO, Way, participants};
use crate::bench::ground::{Ground, Store};
use crate::bench::shape::Saga;
use crate::bench::system::{Group, System};
use crate::process::Process;
use anyhow::{Context, Result};
use hyper::Method;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;

pub(super) struct Dtmrs {
    name: &'static str,
    durable: &'static str,
    /// Ends when it is dropped.
    _process: Process,
    group: Group,
    client: Client,
    run: String,
    ends: String,
    participants: [SocketAddr; BRANCHES],
    counted: Counted,
}

impl Dtmrs {
    /// Starts it on a new store.
    ///
    /// # Errors
    /// If it does not come up.
    pub(super) async fn start(durability: Durability, ground: &Ground, programs: &Programs) -> Result<Self> {
        let (name, durable) = match (ground.store(), durability) {
            (Store::Postgres, _) => ("dtmrs", "the same Postgres cluster, fsync and synchronous_commit on"),
            (Store::Sqlite, Durability::Full) => {
                ("dtmrs", "WAL, synchronous = FULL, which it has no setting for and was given")
            }
            (Store::Sqlite, Durability::AsItComes) => (
                "dtmrs-normal",
                "WAL, synchronous = NORMAL, its own setting: a power cut may take acknowledged sagas along",
            ),
        };
        let mut settings = vec![("RUST_LOG", "warn".to_owned())];
        if (ground.store(), durability) == (Store::Sqlite, Durability::Full) {
            settings.push(("PEER_SQLITE_SYNCHRONOUS", "FULL".to_owned()));
        }
        let store = tokio::task::block_in_place(|| ground.new_store(name))?;
        let process = programs.run("peer-dtmrs", vec![store], settings).await?;
        let address = process.address()?;
        Ok(Self {
            name,
            durable,
            group: group("dtmrs", &process).await?,
            _process: process,
            client: Client::new(),
            run: format!("http://{address}/run"),
            ends: format!("http://{address}/ends"),
            participants: participants(ground)?,
            counted: Counted::default(),
        })
    }
}

#[tonic::async_trait]
impl System for Dtmrs {
    fn name(&self) -> &str {
        self.name
    }

    fn processes(&self) -> Vec<Group> {
        vec![self.group.clone()]
    }

    fn settings(&self) -> Vec<String> {
        [
            self.durable,
            "branches one after the other whatever the shape: it knows no other way",
            "gRPC to the same participants with empty messages: it sends gRPC no payload",
            "the client is told of the end, where dtmrs itself would have it ask again and again",
            "when the third branch is refused, that one is compensated too",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    async fn prepare(&self, saga: Saga) -> Result<bool> {
        Ok(saga.filler == 0 && Way::of(saga).is_some())
    }

    async fn run_one(&self, saga: Saga, id: String) -> Result<()> {
        let way = Way::of(saga).context(NOT_SUCH)?;
        let steps = self.participants.iter().enumerate().map(|(branch, address)| {
            let (action, undo) = (way.action(branch), UNDO);
            json!({ "action": format!("grpc://{address}/{action}"), "compensate": format!("grpc://{address}/{undo}") })
        });
        let body = json!({ "gid": id, "steps": steps.collect::<Vec<_>>() }).to_string();
        self.client.fetch(Method::POST, &self.run, body).await?;
        // How it ended is not in the answer: its books tell.
        self.counted.count(way);
        Ok(())
    }

    async fn settle(&self) -> Result<()> {
        let answer = self.client.fetch(Method::GET, &self.ends, String::new()).await?;
        let ends: Map<String, Value> = serde_json::from_slice(&answer)?;
        let of = |state: &str| ends.get(state).and_then(Value::as_u64).unwrap_or(0);
        self.counted.agrees(of("succeed"), of("failed"), ends.values().filter_map(Value::as_u64).sum())
    }
}
