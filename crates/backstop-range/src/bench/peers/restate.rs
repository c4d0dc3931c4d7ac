//! Restate (npm `@restatedev/restate-server`, a program of its own kind): the server, and a service in its Rust SDK, in
//! `peers/restate`.

use super::http::Client;
use super::programs::{Programs, free_ports, group};
use super::wish::Manner;
use super::{ABORT, ACT, NOT_SUCH, UNDO, Way, participants};
use crate::bench::ground::Ground;
use crate::bench::shape::Saga;
use crate::bench::system::{Group, System};
use crate::process::{Process, eventually};
use anyhow::{Context, Result, ensure};
use hyper::Method;
use serde_json::json;
use std::time::Duration;

/// Longest wait until the server is up.
const START_MAX: Duration = Duration::from_secs(60);

pub(super) struct Restate {
    name: String,
    partitions: u16,
    manner: Manner,
    /// End when they are dropped.
    _processes: [Process; 2],
    groups: [Group; 2],
    client: Client,
    /// Where requests come in, up to the handler's name.
    sagas: String,
}

impl Restate {
    /// Starts the server on a store of its own and makes the service known to it.
    ///
    /// # Errors
    /// If one of the two does not come up.
    pub(super) async fn start(
        partitions: u16,
        manner: Manner,
        ground: &Ground,
        programs: &Programs,
    ) -> Result<Self> {
        let name = format!(
            "restate-{partitions}{}",
            match manner {
                Manner::AsAsked => "",
                Manner::Sequential => "-sequential",
                Manner::OneStep => "-one-step",
            }
        );
        let addresses = participants(ground)?.map(|address| format!("http://{address}")).to_vec();
        let service = programs.run("peer-restate", addresses, vec![("RUST_LOG", "warn".to_owned())]).await?;
        let [ingress, admin, node] = free_ports()?;
        // Durability is left as it comes: the log, which is the truth, goes to RocksDB's write-ahead log and is flushed
        // with fsync (there are settings to turn that off; here they are said to be what they are by default); one copy,
        // as one Postgres is one.
        let settings = vec![
            ("RESTATE_BASE_DIR", ground.folder().join(&name).display().to_string()),
            ("RESTATE_DEFAULT_NUM_PARTITIONS", partitions.to_string()),
            ("RESTATE_BIFROST__LOCAL__ROCKSDB_DISABLE_WAL_FSYNC", "false".to_owned()),
            ("RESTATE_LOG_SERVER__ROCKSDB_DISABLE_WAL_FSYNC", "false".to_owned()),
            ("RESTATE_LISTEN_MODE", "tcp".to_owned()),
            ("RESTATE_INGRESS__BIND_ADDRESS", ingress.to_string()),
            ("RESTATE_ADMIN__BIND_ADDRESS", admin.to_string()),
            ("RESTATE_BIND_ADDRESS", node.to_string()),
            ("RESTATE_NODE_NAME", name.clone()),
            ("RESTATE_LOG_FILTER", "warn".to_owned()),
            ("RESTATE_DISABLE_TELEMETRY", "true".to_owned()),
            ("DO_NOT_TRACK", "1".to_owned()),
        ];
        let server = programs.run_foreign("restate-server", ingress, settings).await?;
        let client = Client::new();
        let health = format!("http://{admin}/health");
        let up = eventually("restate-server", START_MAX, || async {
            Ok(client.fetch(Method::GET, &health, String::new()).await.ok())
        });
        up.await.with_context(|| server.last_lines(20).join("\n"))?;
        let deployment = json!({ "uri": format!("http://{}/", service.address()?) }).to_string();
        client.fetch(Method::POST, &format!("http://{admin}/deployments"), deployment).await?;
        let groups = [group("restate-server", &server).await?, group("its service", &service).await?];
        Ok(Self {
            name,
            partitions,
            manner,
            _processes: [server, service],
            groups,
            client,
            sagas: format!("http://{ingress}/Saga/"),
        })
    }

    fn handler(&self, way: Way) -> &'static str {
        match (self.manner, way) {
            (Manner::Sequential, _) | (Manner::AsAsked, Way::Sequential) => "sequential",
            (Manner::AsAsked, Way::Concurrent | Way::RolledBack) => "concurrent",
            (Manner::OneStep, _) => "one_step",
        }
    }
}

#[tonic::async_trait]
impl System for Restate {
    fn name(&self) -> &str {
        &self.name
    }

    fn processes(&self) -> Vec<Group> {
        self.groups.to_vec()
    }

    fn settings(&self) -> Vec<String> {
        let manner = match self.manner {
            Manner::AsAsked => {
                "concurrent branches: durable calls of a second handler at once, each of which calls its participant; \
                 sequential ones: durable steps (ctx.run)"
            }
            Manner::Sequential => "durable steps (ctx.run), one after the other whatever the shape",
            Manner::OneStep => {
                "one durable step with all three calls in it at once: no branch is on record by itself, which promises \
                 less than the others do"
            }
        };
        vec![
            "its own log, flushed with fsync, one copy".to_owned(),
            format!("{} partitions", self.partitions),
            format!("{manner}; each compensation a durable step"),
            "gRPC to the same participants with empty messages".to_owned(),
            "no idempotency key on the request: a client that asks twice starts two".to_owned(),
        ]
    }

    async fn prepare(&self, saga: Saga) -> Result<bool> {
        let way = Way::of(saga);
        // One step makes its calls at once: for steps one after the other it would be no answer.
        let is_out_of_order = self.manner == Manner::OneStep && way == Some(Way::Sequential);
        Ok(saga.filler == 0 && way.is_some() && !is_out_of_order)
    }

    async fn run_one(&self, saga: Saga, _: String) -> Result<()> {
        let way = Way::of(saga).context(NOT_SUCH)?;
        let (last, end) = match way {
            Way::Concurrent | Way::Sequential => (ACT, "\"SUCCEEDED\""),
            Way::RolledBack => (ABORT, "\"ROLLED_BACK\""),
        };
        let path = |method| format!("/{method}");
        let methods = json!({ "action": path(ACT), "last": path(last), "compensation": path(UNDO) });
        let uri = format!("{}{}", self.sagas, self.handler(way));
        let answer = self.client.fetch(Method::POST, &uri, methods.to_string()).await?;
        ensure!(answer == end, "it is {}", String::from_utf8_lossy(&answer));
        Ok(())
    }
}
