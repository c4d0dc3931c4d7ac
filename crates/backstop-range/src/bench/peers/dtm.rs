//! DTM (Go): a server that runs somewhere, or the one that `cargo xtask peers` has built, on the run's Postgres.
//!
//! A saga is one `dtmgimp.Dtm/Submit` that waits for its end; its branches are gRPC methods of the participants.

use super::programs::{free_ports, pid};
use super::{BRANCHES, Counted, Ground, Peer, UNDO, Way};
use crate::process::{Process, eventually};
use anyhow::{Context, Result, bail};
use prost::Message;
use serde_json::json;
use sqlx::{Connection, PgConnection, Row};
use std::net::SocketAddr;
use std::time::Duration;
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// Longest wait until the server is up.
const START_MAX: Duration = Duration::from_secs(30);
/// Connections to the database that it may hold: some for each core, and fewer than the cluster has.
const CONNECTIONS_MAX: u32 = 64;

/// What a saga is submitted with; fields that we leave out have their numbers free.
#[derive(Clone, PartialEq, Message)]
struct Submit {
    #[prost(string, tag = "1")]
    gid: String,
    #[prost(string, tag = "2")]
    trans_type: String,
    #[prost(message, optional, tag = "3")]
    options: Option<Options>,
    #[prost(string, tag = "4")]
    custom_data: String,
    #[prost(bytes = "vec", repeated, tag = "5")]
    payloads: Vec<Vec<u8>>,
    #[prost(string, tag = "7")]
    steps: String,
}

#[derive(Clone, PartialEq, Message)]
struct Options {
    #[prost(bool, tag = "1")]
    wait_result: bool,
}

pub(super) struct Dtm {
    /// None if somebody else has started it.
    own: Option<Own>,
    channel: Channel,
    participants: [SocketAddr; BRANCHES],
}

struct Own {
    process: Process,
    pid: u32,
    url: String,
    database: String,
}

impl Dtm {
    /// One that runs.
    pub(super) fn at(address: &str, ground: &Ground<'_>) -> Result<Self> {
        let channel = Endpoint::from_shared(address.to_owned())?.tcp_nodelay(true).connect_lazy();
        Ok(Self { own: None, channel, participants: ground.participants })
    }

    /// One of our own.
    pub(super) async fn start(ground: &Ground<'_>) -> Result<Self> {
        let schema = std::fs::read_to_string(ground.programs.file("dtm.sql")?)?;
        let (url, database) = ground.database()?;
        let user = url.split_once("://").and_then(|(_, rest)| rest.split_once('@')).context("a user")?.0;
        let mut connection = PgConnection::connect(&url).await?;
        // The tables that DTM ships for itself.
        sqlx::raw_sql(sqlx::AssertSqlSafe(schema)).execute(&mut connection).await.context("dtm.sql")?;
        let [http, grpc, json_rpc] = free_ports()?;
        let server = ground.postgres.address();
        let settings = vec![
            ("STORE_DRIVER", "postgres".to_owned()),
            ("STORE_HOST", server.ip().to_string()),
            ("STORE_PORT", server.port().to_string()),
            ("STORE_USER", user.to_owned()),
            ("STORE_PASSWORD", "none".to_owned()),
            ("STORE_DB", database.clone()),
            ("STORE_MAX_OPEN_CONNS", CONNECTIONS_MAX.to_string()),
            ("STORE_MAX_IDLE_CONNS", CONNECTIONS_MAX.to_string()),
            // Else it answers before the branches' states are stored: less than Backstop promises.
            ("UPDATE_BRANCH_SYNC", "1".to_owned()),
            ("HTTP_PORT", http.port().to_string()),
            ("GRPC_PORT", grpc.port().to_string()),
            ("JSON_RPC_PORT", json_rpc.port().to_string()),
            ("LOG_LEVEL", "warn".to_owned()),
            ("GIN_MODE", "release".to_owned()),
        ];
        let process = ground.programs.run_foreign("dtm", grpc, settings).await?;
        let reached =
            eventually("DTM", START_MAX, || async { Ok(tokio::net::TcpStream::connect(grpc).await.ok()) });
        if let Err(error) = reached.await {
            bail!("{error:#}:\n{}", process.last_lines(20).join("\n"));
        }
        let own = Own { pid: pid(&process).await?, process, database, url };
        Ok(Self { own: Some(own), ..Self::at(&format!("http://{grpc}"), ground)? })
    }
}

#[tonic::async_trait]
impl Peer for Dtm {
    fn name(&self) -> String {
        if self.own.is_some() { "DTM, Postgres" } else { "DTM" }.to_owned()
    }

    fn said(&self, way: Way) -> String {
        let order = match way {
            Way::Concurrent => "branches at once; ",
            Way::Sequential | Way::RolledBack => "one branch after the other; ",
        };
        let durable = if self.own.is_some() {
            "the same Postgres cluster, fsync and synchronous_commit on, branch updates synchronous"
        } else {
            "how durable it is and where it runs is for whoever started it to say"
        };
        format!("{order}gRPC to the same participants with the same bytes; {durable}")
    }

    fn can(&self, _: Way) -> bool {
        true
    }

    fn processes(&self) -> Vec<(&'static str, u32)> {
        self.own.iter().map(|own| ("dtm", own.pid)).collect()
    }

    fn database(&self) -> Option<&str> {
        self.own.as_ref().map(|own| own.database.as_str())
    }

    async fn run_one(&self, id: &str, way: Way) -> Result<bool> {
        let steps = self.participants.iter().enumerate().map(|(branch, address)| {
            let (action, undo) = (way.action(branch), UNDO);
            json!({ "action": format!("{address}/{action}"), "compensate": format!("{address}/{undo}") })
        });
        let submit = Submit {
            gid: id.to_owned(),
            trans_type: "saga".to_owned(),
            options: Some(Options { wait_result: true }),
            custom_data: match way {
                Way::Concurrent => json!({ "concurrent": true }).to_string(),
                Way::Sequential | Way::RolledBack => String::new(),
            },
            payloads: vec![
                crate::wire::Work { saga: id.to_owned(), ..Default::default() }.encode_to_vec();
                BRANCHES
            ],
            steps: serde_json::Value::from_iter(steps).to_string(),
        };
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await?;
        let path = PathAndQuery::from_static("/dtmgimp.Dtm/Submit");
        let answer =
            client.unary(tonic::Request::new(submit), path, ProstCodec::<Submit, ()>::default()).await;
        match (answer, way) {
            (Ok(_), Way::Concurrent | Way::Sequential) => Ok(true),
            (Err(status), Way::RolledBack) if status.code() == Code::Aborted => Ok(true),
            (Ok(_), Way::RolledBack) => Ok(false),
            (Err(status), _) => bail!("DTM: {:?} {}", status.code(), status.message()),
        }
    }

    async fn check(&self, counted: Counted) -> Result<()> {
        let Some(own) = &self.own else { return Ok(()) };
        let mut connection = PgConnection::connect(&own.url).await?;
        let count = "SELECT COUNT(*) FILTER (WHERE status = 'succeed'), COUNT(*) FILTER (WHERE status = 'failed'), \
                     COUNT(*) FROM trans_global";
        let row = sqlx::query(count).fetch_one(&mut connection).await?;
        let read = |place: usize| anyhow::Ok(u64::try_from(row.try_get::<i64, _>(place)?)?);
        let booked = Counted { succeeded: read(0)?, rolled_back: read(1)? };
        if booked != counted || read(2)? != counted.succeeded + counted.rolled_back {
            bail!("counted {counted:?}, its books say {booked:?} of {}", read(2)?);
        }
        Ok(())
    }

    async fn end(&self) -> Result<()> {
        match &self.own {
            Some(own) => own.process.kill().await,
            None => Ok(()),
        }
    }
}
