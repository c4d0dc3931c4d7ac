//! Restate (npm `@restatedev/restate-server`, a program of its own kind): the server, and a service in its Rust SDK, in
//! `peers/restate`.

use super::http::Client;
use super::programs::{free_ports, pid};
use super::wish::Manner;
use super::{Counted, Ground, Peer, UNDO, Way};
use crate::process::{Process, eventually};
use anyhow::{Result, bail};
use hyper::{Method, Uri};
use serde_json::json;
use std::time::Duration;

/// Longest wait until the server is up.
const START_MAX: Duration = Duration::from_secs(60);

pub(super) struct Restate {
    partitions: u16,
    manner: Manner,
    server: Process,
    service: Process,
    pids: [u32; 2],
    client: Client,
    ingress: String,
    uris: [Uri; 3],
}

impl Restate {
    pub(super) async fn start(partitions: u16, manner: Manner, ground: &Ground<'_>) -> Result<Self> {
        let participants = ground.participants.iter().map(|address| format!("http://{address}"));
        let settings = vec![("RUST_LOG", "warn".to_owned())];
        let service = ground.programs.run("peer-restate", participants.collect(), settings).await?;
        let [ingress, admin, node] = free_ports()?;
        let folder = ground.folder.join(format!("restate-{partitions}-{manner:?}"));
        // Durability is left as it comes: the log, which is the truth, is written to RocksDB's write-ahead log and
        // flushed with fsync (both settings are there to turn that off); one copy, as one Postgres is one.
        let settings = vec![
            ("RESTATE_BASE_DIR", folder.display().to_string()),
            ("RESTATE_DEFAULT_NUM_PARTITIONS", partitions.to_string()),
            ("RESTATE_BIFROST__LOCAL__ROCKSDB_DISABLE_WAL_FSYNC", "false".to_owned()),
            ("RESTATE_LOG_SERVER__ROCKSDB_DISABLE_WAL_FSYNC", "false".to_owned()),
            ("RESTATE_LISTEN_MODE", "tcp".to_owned()),
            ("RESTATE_INGRESS__BIND_ADDRESS", ingress.to_string()),
            ("RESTATE_ADMIN__BIND_ADDRESS", admin.to_string()),
            ("RESTATE_BIND_ADDRESS", node.to_string()),
            ("RESTATE_NODE_NAME", "peer".to_owned()),
            ("RESTATE_LOG_FILTER", "warn".to_owned()),
            ("RESTATE_DISABLE_TELEMETRY", "true".to_owned()),
            ("DO_NOT_TRACK", "1".to_owned()),
        ];
        let server = ground.programs.run_foreign("restate-server", ingress, settings).await?;
        let client = Client::new();
        let health = format!("http://{admin}/health");
        eventually("restate-server", START_MAX, || async {
            Ok(client.fetch(Method::GET, &health, String::new()).await.ok())
        })
        .await?;
        let deployment = json!({ "uri": format!("http://{}/", service.address()?) }).to_string();
        client.fetch(Method::POST, &format!("http://{admin}/deployments"), deployment).await?;
        let uri = |handler: &str| format!("http://{ingress}/Saga/{handler}").parse::<Uri>();
        Ok(Self {
            partitions,
            manner,
            pids: [pid(&server).await?, pid(&service).await?],
            server,
            service,
            client,
            ingress: ingress.to_string(),
            uris: [uri("concurrent")?, uri("sequential")?, uri("one_step")?],
        })
    }

    fn uri(&self, way: Way) -> &Uri {
        let [concurrent, sequential, one_step] = &self.uris;
        match (self.manner, way) {
            (Manner::Sequential, _) | (Manner::AsAsked, Way::Sequential) => sequential,
            (Manner::AsAsked, Way::Concurrent | Way::RolledBack) => concurrent,
            (Manner::OneStep, _) => one_step,
        }
    }
}

#[tonic::async_trait]
impl Peer for Restate {
    fn name(&self) -> String {
        let manner = match self.manner {
            Manner::AsAsked => "",
            Manner::Sequential => ", sequential",
            Manner::OneStep => ", one step",
        };
        format!("Restate, {} partitions{manner}", self.partitions)
    }

    fn said(&self, way: Way) -> String {
        let steps = match (self.manner, way) {
            (Manner::Sequential, _) | (Manner::AsAsked, Way::Sequential) => {
                "three durable steps (ctx.run), one after the other"
            }
            (Manner::AsAsked, Way::Concurrent | Way::RolledBack) => {
                "three durable calls of a second handler at once, each of which calls its participant"
            }
            (Manner::OneStep, _) => {
                "one durable step with all three calls in it at once: no branch is on record by itself, so this \
                 promises less than the others"
            }
        };
        let undone = if way == Way::RolledBack { "; each compensation a durable step" } else { "" };
        format!(
            "{steps}{undone}; gRPC to the same participants with empty messages; no idempotency key on the request, so \
             that a client that asks twice starts two; its log flushed with fsync, one copy"
        )
    }

    fn can(&self, _: Way) -> bool {
        true
    }

    fn processes(&self) -> Vec<(&'static str, u32)> {
        let [server, service] = self.pids;
        vec![("restate-server", server), ("its service", service)]
    }

    fn database(&self) -> Option<&str> {
        None
    }

    async fn run_one(&self, _: &str, way: Way) -> Result<bool> {
        let (action, last, compensation) =
            (format!("/{}", way.action(0)), format!("/{}", way.action(2)), format!("/{UNDO}"));
        let body = json!({ "action": action, "last": last, "compensation": compensation }).to_string();
        let (status, answer) = self.client.ask(Method::POST, self.uri(way).clone(), body).await?;
        if !status.is_success() {
            bail!("{}: {status} {}", self.ingress, String::from_utf8_lossy(&answer));
        }
        Ok(match way {
            Way::Concurrent | Way::Sequential => answer == "\"SUCCEEDED\"",
            Way::RolledBack => answer == "\"ROLLED_BACK\"",
        })
    }

    async fn check(&self, _: Counted) -> Result<()> {
        // Each answer has said how its saga ended.
        Ok(())
    }

    async fn end(&self) -> Result<()> {
        self.server.kill().await?;
        self.service.kill().await
    }
}
