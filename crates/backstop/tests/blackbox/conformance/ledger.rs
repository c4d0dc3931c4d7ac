//! The ledger of `examples/participant-python` in Rust, on Postgres, with the SDK's barrier: what a handler of
//! somebody's own service looks like.

use backstop_participant::{Barrier, Context, Engine, Entered, Fingerprint, Stop};
use backstop_sql::testing::Postgres;
use sqlx::PgConnection;
use sqlx::postgres::PgPoolOptions;
use std::convert::Infallible;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::Poll;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
struct DebitRequest {
    #[prost(string, tag = "1")]
    transfer_id: String,
    #[prost(string, tag = "2")]
    account: String,
    #[prost(int64, tag = "3")]
    amount_minor: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DebitReply {
    #[prost(string, tag = "1")]
    entry_id: String,
    #[prost(int64, tag = "2")]
    available_minor: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReverseDebitRequest {
    #[prost(string, tag = "1")]
    transfer_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReverseDebitReply {
    #[prost(bool, tag = "1")]
    reversed: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Name {
    #[prost(string, tag = "1")]
    text: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Account {
    #[prost(string, tag = "1")]
    account: String,
    #[prost(int64, tag = "2")]
    available_minor: i64,
}

/// A running ledger; it ends when it is dropped.
pub(super) struct Ledger {
    pub(super) address: String,
    pool: sqlx::PgPool,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Where the proto and the Python ledgers are.
pub(super) fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/participant-python")
}

/// The ledger's message types.
pub(super) fn descriptors() -> prost_types::FileDescriptorSet {
    protox::compile(["ledger.proto"], [example()]).expect("the example's proto compiles")
}

impl Ledger {
    pub(super) async fn start(reflects: bool) -> Self {
        let url = Postgres::shared().unwrap().create_database().unwrap();
        let pool = PgPoolOptions::new().max_connections(8).connect(&url).await.unwrap();
        sqlx::raw_sql(<sqlx::Postgres as Engine>::SCHEMA).execute(&pool).await.unwrap();
        let books = "
            CREATE TABLE account (id TEXT PRIMARY KEY, available BIGINT NOT NULL);
            CREATE TABLE entry (id BIGSERIAL PRIMARY KEY, transfer TEXT, account TEXT, amount BIGINT NOT NULL);
            INSERT INTO account VALUES ('alice', 1000000);";
        sqlx::raw_sql(books).execute(&pool).await.unwrap();

        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", socket.local_addr().unwrap());
        let mut router = tonic::transport::Server::builder()
            .add_service(Service { barrier: Barrier::new(pool.clone()), pool: pool.clone() });
        if reflects {
            let reflection =
                tonic_reflection::server::Builder::configure().register_file_descriptor_set(descriptors());
            router = router.add_service(reflection.build_v1().unwrap());
        }
        let server = tokio::spawn(async move {
            // The end of the test aborts this task; an error here would show as missing answers.
            let _ = router.serve_with_incoming(TcpListenerStream::new(socket)).await;
        });
        Self { address, pool, server }
    }

    /// What is left on the account.
    pub(super) async fn available(&self) -> i64 {
        let row: (i64,) =
            sqlx::query_as("SELECT available FROM account").fetch_one(&self.pool).await.unwrap();
        row.0
    }

    /// Saga, step, phase and state of all that its barrier keeps.
    pub(super) async fn rows(&self) -> Vec<(String, String, String, String)> {
        let rows = "SELECT saga_id, step, phase, state FROM backstop_barrier ORDER BY 1, 2, 3";
        sqlx::query_as(rows).fetch_all(&self.pool).await.unwrap()
    }
}

#[derive(Clone)]
struct Service {
    barrier: Barrier<sqlx::Postgres>,
    pool: sqlx::PgPool,
}

impl Service {
    async fn debit(&self, request: Request<DebitRequest>) -> Result<Response<DebitReply>, Status> {
        let context = Context::require(request.metadata())?;
        let request = request.into_inner();
        let mut call = match self.barrier.enter(&context, Fingerprint::of("Debit", &request)).await? {
            Entered::First(call) => call,
            Entered::Answered(answer) => return answer,
        };
        let outcome = debit(call.db(), &request).await;
        call.finish(outcome).await
    }

    async fn reverse(
        &self,
        request: Request<ReverseDebitRequest>,
    ) -> Result<Response<ReverseDebitReply>, Status> {
        let context = Context::require(request.metadata())?;
        let request = request.into_inner();
        let mut call = match self.barrier.enter(&context, Fingerprint::of("ReverseDebit", &request)).await? {
            Entered::First(call) => call,
            Entered::Answered(answer) => return answer,
        };
        let debit: DebitReply = call.action_reply().unwrap_or_default();
        let outcome = reverse(call.db(), &debit.entry_id).await;
        call.finish(outcome).await
    }

    async fn ask(&self, request: Request<Name>) -> Result<Response<DebitReply>, Status> {
        self.barrier.query(&Context::require(request.metadata())?).await
    }

    async fn account(&self, request: Request<Name>) -> Result<Response<Account>, Status> {
        let account = request.into_inner().text;
        let row: Option<(i64,)> = sqlx::query_as("SELECT available FROM account WHERE id = $1")
            .bind(&account)
            .fetch_optional(&self.pool)
            .await
            .map_err(|_| Status::unavailable("the books are shut"))?;
        let (available_minor,) = row.ok_or_else(|| Status::not_found("no such account"))?;
        Ok(Response::new(Account { account, available_minor }))
    }
}

async fn debit(db: &mut PgConnection, request: &DebitRequest) -> Result<DebitReply, Stop> {
    let taken: Option<(i64,)> = sqlx::query_as(
        "UPDATE account SET available = available - $2 WHERE id = $1 AND available >= $2 RETURNING available",
    )
    .bind(&request.account)
    .bind(request.amount_minor)
    .fetch_optional(&mut *db)
    .await?;
    let Some((available_minor,)) = taken else {
        return Err(Stop::Refused(Status::failed_precondition("insufficient funds")));
    };
    let (entry,): (i64,) =
        sqlx::query_as("INSERT INTO entry (transfer, account, amount) VALUES ($1, $2, $3) RETURNING id")
            .bind(&request.transfer_id)
            .bind(&request.account)
            .bind(-request.amount_minor)
            .fetch_one(db)
            .await?;
    Ok(DebitReply { entry_id: entry.to_string(), available_minor })
}

async fn reverse(db: &mut PgConnection, entry: &str) -> Result<ReverseDebitReply, Stop> {
    let entry: i64 = entry.parse().map_err(|_| Status::internal("the debit's reply names no entry"))?;
    let (account, amount): (String, i64) = sqlx::query_as("SELECT account, amount FROM entry WHERE id = $1")
        .bind(entry)
        .fetch_one(&mut *db)
        .await?;
    sqlx::query("UPDATE account SET available = available - $2 WHERE id = $1")
        .bind(&account)
        .bind(amount)
        .execute(&mut *db)
        .await?;
    sqlx::query("INSERT INTO entry (transfer, account, amount) VALUES ('', $1, $2)")
        .bind(&account)
        .bind(-amount)
        .execute(db)
        .await?;
    Ok(ReverseDebitReply { reversed: true })
}

impl tonic::server::NamedService for Service {
    const NAME: &'static str = "example.ledger.v1.LedgerService";
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a generator would write.
macro_rules! unary {
    ($service:ident, $request:ident, $handler:ident) => {{
        let handler = tower::service_fn(move |request| {
            let service = $service.clone();
            async move { service.$handler(request).await }
        });
        tonic::server::Grpc::new(ProstCodec::default()).unary(handler, $request).await
    }};
}

impl tower::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path().rsplit('/').next() {
                Some("Debit") => unary!(service, request, debit),
                Some("ReverseDebit") => unary!(service, request, reverse),
                Some("GetDebit") => unary!(service, request, ask),
                Some("GetAccount") => unary!(service, request, account),
                Some(_) | None => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}
