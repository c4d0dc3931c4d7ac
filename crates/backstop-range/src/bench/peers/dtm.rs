//! DTM (Go): a server that runs somewhere, or the one that `cargo xtask peers` has built, on the run's Postgres.
//!
//! A saga is one `dtmgimp.Dtm/Submit` that waits for its end; its branches are gRPC methods of the participants.

use super::counted::Counted;
use super::programs::{Programs, free_ports, group};
use super::{BRANCHES, NOT_SUCH, UNDO, Way, participants};
use crate::bench::ground::Ground;
use crate::bench::shape::{Saga, filler};
use crate::bench::system::{Group, System};
use crate::process::{Process, eventually};
use crate::wire::Work;
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
    counted: Counted,
}

struct Own {
    /// Ends when it is dropped.
    _process: Process,
    group: Group,
    url: String,
}

impl Dtm {
    /// One that runs.
    ///
    /// # Errors
    /// If its address is none.
    pub(super) fn at(address: &str, ground: &Ground) -> Result<Self> {
        let channel = Endpoint::from_shared(address.to_owned())?.tcp_nodelay(true).connect_lazy();
        Ok(Self { own: None, channel, participants: participants(ground)?, counted: Counted::default() })
    }

    /// One of our own, in a database of its own.
    ///
    /// # Errors
    /// If it does not come up.
    pub(super) async fn start(ground: &Ground, programs: &Programs) -> Result<Self> {
        let schema = std::fs::read_to_string(programs.file("dtm.sql")?)?;
        let server = ground.postgres().context("a Postgres")?.address();
        let url = tokio::task::block_in_place(|| ground.new_store("dtm"))?;
        let database = url.rsplit_once('/').context("the URL names a database")?.1.to_owned();
        let user = url.split_once("://").and_then(|(_, rest)| rest.split_once('@')).context("a user")?.0;
        let mut connection = PgConnection::connect(&url).await?;
        // The tables that DTM ships for itself.
        sqlx::raw_sql(sqlx::AssertSqlSafe(schema)).execute(&mut connection).await.context("dtm.sql")?;
        let [http, grpc, json_rpc] = free_ports()?;
        let settings = vec![
            ("STORE_DRIVER", "postgres".to_owned()),
            ("STORE_HOST", server.ip().to_string()),
            ("STORE_PORT", server.port().to_string()),
            ("STORE_USER", user.to_owned()),
            ("STORE_PASSWORD", "none".to_owned()),
            ("STORE_DB", database),
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
        let process = programs.run_foreign("dtm", grpc, settings).await?;
        let reached =
            eventually("DTM", START_MAX, || async { Ok(tokio::net::TcpStream::connect(grpc).await.ok()) });
        if let Err(error) = reached.await {
            bail!("{error:#}:\n{}", process.last_lines(20).join("\n"));
        }
        let own = Own { group: group("dtm", &process).await?, _process: process, url };
        Ok(Self { own: Some(own), ..Self::at(&format!("http://{grpc}"), ground)? })
    }
}

#[tonic::async_trait]
impl System for Dtm {
    fn name(&self) -> &str {
        if self.own.is_some() { "dtm" } else { "dtm-there" }
    }

    fn processes(&self) -> Vec<Group> {
        self.own.iter().map(|own| own.group.clone()).collect()
    }

    fn settings(&self) -> Vec<String> {
        let durable = if self.own.is_some() {
            "the same Postgres cluster, fsync and synchronous_commit on; UpdateBranchSync = 1, so that it answers after \
             its branches are stored"
        } else {
            "how durable it is and where it runs is for whoever started it to say"
        };
        vec![durable.to_owned(), "gRPC to the same participants with the same bytes".to_owned()]
    }

    async fn prepare(&self, saga: Saga) -> Result<bool> {
        Ok(Way::of(saga).is_some())
    }

    async fn run_one(&self, saga: Saga, id: String) -> Result<()> {
        let way = Way::of(saga).context(NOT_SUCH)?;
        let steps = self.participants.iter().enumerate().map(|(branch, address)| {
            let (action, undo) = (way.action(branch), UNDO);
            json!({ "action": format!("{address}/{action}"), "compensate": format!("{address}/{undo}") })
        });
        let work = Work { saga: id.clone(), filler: filler(saga.filler).to_vec(), ..Work::default() };
        let submit = Submit {
            gid: id,
            trans_type: "saga".to_owned(),
            options: Some(Options { wait_result: true }),
            custom_data: match way {
                Way::Concurrent | Way::RolledBack => json!({ "concurrent": true }).to_string(),
                Way::Sequential => String::new(),
            },
            payloads: vec![work.encode_to_vec(); BRANCHES],
            steps: serde_json::Value::from_iter(steps).to_string(),
        };
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await?;
        let path = PathAndQuery::from_static("/dtmgimp.Dtm/Submit");
        let answer =
            client.unary(tonic::Request::new(submit), path, ProstCodec::<Submit, ()>::default()).await;
        match (answer, way) {
            (Ok(_), Way::Concurrent | Way::Sequential) => {}
            (Err(status), Way::RolledBack) if status.code() == Code::Aborted => {}
            (Ok(_), Way::RolledBack) => bail!("it has succeeded"),
            (Err(status), _) => bail!("{:?}: {}", status.code(), status.message()),
        }
        self.counted.count(way);
        Ok(())
    }

    async fn settle(&self) -> Result<()> {
        let Some(own) = &self.own else { return Ok(()) };
        let mut connection = PgConnection::connect(&own.url).await?;
        let count = "SELECT COUNT(*) FILTER (WHERE status = 'succeed'), COUNT(*) FILTER (WHERE status = 'failed'), \
                     COUNT(*) FROM trans_global";
        let row = sqlx::query(count).fetch_one(&mut connection).await?;
        let read = |place: usize| anyhow::Ok(u64::try_from(row.try_get::<i64, _>(place)?)?);
        self.counted.agrees(read(0)?, read(1)?, read(2)?)
    }
}
