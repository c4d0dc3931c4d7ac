//! The floor: what a saga would cost if coordinating it cost nothing.
//!
//! * *Calls*: one call to a process that stands in for the coordinator, with a request and an answer as long as
//!   StartSaga's, then the calls of the saga's branches, as many at once, to the same participants with metadata as
//!   long; over one connection to each, by the same gRPC client.
//! * *Journal*: the saga's events, byte for byte as long, appended to a plain table (saga, seq, payload) with its key,
//!   on the same database, by one writer that takes all that has queued up into one statement and one commit. Each
//!   client waits for its commit as often as a saga must: once before its first call, and so on.
//!
//! Both halves need the same processors, so the floor's rate is 1 / (1 / calls + 1 / journal).
//!
//! # Not here
//! The head row of a saga, its indexes, leases: these are Backstop's own choice, and so part of its distance.

use super::ground::{Ground, Store, connect};
use super::load::{Ran, repeat};
use super::shape::{Saga, Shape, filler};
use crate::wire::Work;
use crate::wire::bench_client::BenchClient;
use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{PgPool, QueryBuilder, Sqlite};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tonic::metadata::{Ascii, MetadataKey, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

/// Appends that wait for the writer, and that it takes at once.
const QUEUE_MAX: usize = 4_096;
/// Rows of one statement of SQLite's.
const SQLITE_ROWS_MAX: usize = 1_000;
/// What a call of Backstop's bears; the values are as long as real ones.
const METADATA: [(&str, &str); 10] = [
    ("backstop-saga-id", "bench-concurrent-raw-backstop-64-0-12345"),
    ("backstop-definition", "bench-concurrent-raw"),
    ("backstop-step", "a"),
    ("backstop-phase", "action"),
    ("backstop-attempt", "1"),
    ("backstop-clock", "1"),
    ("backstop-epoch", "1"),
    ("idempotency-key", "bench-concurrent-raw-backstop-64-0-12345/a/action"),
    ("grpc-timeout", "9999998u"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
];

/// The lengths of what one saga of a kind sends, answers and writes, as one that ran shows them.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// StartSaga's request.
    pub(super) request: usize,
    /// Its answer.
    pub(super) answer: usize,
    /// Each event.
    pub(super) events: Vec<usize>,
}

type Key = MetadataKey<Ascii>;
type Value = MetadataValue<Ascii>;

/// The calls of sagas.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    stand_in: BenchClient<Channel>,
    participants: Vec<BenchClient<Channel>>,
    metadata: Arc<[(Key, Value)]>,
}

impl Calls {
    /// Connects.
    pub(super) async fn connect(ground: &Ground) -> Result<Self> {
        let mut participants = Vec::new();
        for (_, endpoint) in ground.endpoints()? {
            participants.push(client(endpoint).await?);
        }
        let metadata = METADATA.iter().map(|(key, value)| Ok((key.parse()?, value.parse()?)));
        Ok(Self {
            stand_in: client(ground.stand_in()?).await?,
            participants,
            metadata: metadata.collect::<Result<_>>()?,
        })
    }

    /// Makes those of one kind of saga over and over.
    pub(super) async fn run(
        &self,
        saga: Saga,
        sample: &Sample,
        in_flight: usize,
        time: Duration,
    ) -> Result<Ran> {
        let (calls, sample) = (self.clone(), sample.clone());
        repeat(in_flight, time, move |number| {
            let (calls, sample) = (calls.clone(), sample.clone());
            async move { calls.one(saga, &sample, number).await }
        })
        .await
    }

    async fn one(&self, saga: Saga, sample: &Sample, number: u64) -> Result<()> {
        let work = |filled: usize, answer: usize| {
            let (saga, account) = (format!("floor-{}-{number}", saga.name()), "4711".to_owned());
            let answer = u32::try_from(answer).unwrap_or_default();
            Work { saga, account, amount: 12_34, filler: filler(filled).to_vec(), answer }
        };
        self.stand_in.clone().start(work(sample.request.saturating_sub(64), sample.answer)).await?;
        for (round, &calls) in saga.shape.rounds().iter().enumerate() {
            try_join_all((0..calls).map(|place| {
                let is_refused = saga.shape == Shape::RolledBack && round == 0 && place == 2;
                let is_undone = saga.shape == Shape::RolledBack && round == 1;
                // What undoes carries no more than the saga.
                let work = work(if is_undone { 0 } else { saga.filler }, 0);
                self.call(place, work, is_refused, is_undone)
            }))
            .await?;
        }
        Ok(())
    }

    async fn call(&self, place: usize, work: Work, is_refused: bool, is_undone: bool) -> Result<()> {
        let client = self.participants.get(place % self.participants.len().max(1));
        let mut client = client.context("a participant")?.clone();
        let mut request = Request::new(work);
        for (key, value) in self.metadata.iter() {
            request.metadata_mut().insert(key, value.clone());
        }
        if is_refused {
            let refused = client.refuse(request).await.map_err(|status| status.code());
            ensure!(refused.err() == Some(Code::FailedPrecondition), "it is not refused");
        } else if is_undone {
            client.undo(request).await?;
        } else {
            client.act(request).await?;
        }
        Ok(())
    }
}

async fn client(endpoint: String) -> Result<BenchClient<Channel>> {
    Ok(BenchClient::new(Endpoint::from_shared(endpoint)?.tcp_nodelay(true).connect().await?))
}

/// Rows, and whoever waits for them to be on disk.
struct Append {
    saga: String,
    first: i64,
    events: Vec<usize>,
    durable: oneshot::Sender<()>,
}

/// A plain journal with one writer. It ends when this is dropped.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    queue: mpsc::Sender<Append>,
}

impl Journal {
    /// Makes its table, in a store of its own, and starts its writer.
    pub(super) async fn start(ground: &Ground) -> Result<Self> {
        let (queue, appends) = mpsc::channel(QUEUE_MAX);
        match ground.store() {
            Store::Postgres => {
                let pool = connect(&ground.new_store("floor")?).await?;
                let table = "CREATE TABLE floor (saga_id text COLLATE \"C\" NOT NULL, seq bigint NOT NULL,
                    payload bytea NOT NULL, PRIMARY KEY (saga_id, seq))";
                sqlx::query(table).execute(&pool).await?;
                tokio::spawn(write_all(appends, async move |batch: &[Append]| postgres(&pool, batch).await));
            }
            Store::Sqlite => {
                let options = SqliteConnectOptions::new()
                    .filename(ground.file("floor"))
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full);
                let pool = SqlitePoolOptions::new().max_connections(1).test_before_acquire(false);
                let pool = pool.connect_with(options).await?;
                let table = "CREATE TABLE floor (saga_id TEXT NOT NULL, seq INTEGER NOT NULL,
                    payload BLOB NOT NULL, PRIMARY KEY (saga_id, seq)) STRICT";
                sqlx::query(table).execute(&pool).await?;
                tokio::spawn(write_all(appends, async move |batch: &[Append]| sqlite(&pool, batch).await));
            }
        }
        Ok(Self { queue })
    }

    /// Appends what sagas of one shape write, over and over.
    pub(super) async fn run(
        &self,
        shape: Shape,
        run: &str,
        sample: &Sample,
        in_flight: usize,
        time: Duration,
    ) -> Result<Ran> {
        let (journal, sample, run) = (self.clone(), sample.clone(), run.to_owned());
        repeat(in_flight, time, move |number| {
            let (journal, sample, id) = (journal.clone(), sample.clone(), format!("{run}-{number}"));
            async move { journal.one(shape, id, &sample).await }
        })
        .await
    }

    /// The appends of one saga, one after the other.
    pub(super) async fn one(&self, shape: Shape, saga: String, sample: &Sample) -> Result<()> {
        let mut first = 0;
        for &count in shape.appends() {
            let (durable, is_durable) = oneshot::channel();
            let events = sample.events.iter().skip(first).take(count).copied().collect();
            let append = Append { saga: saga.clone(), first: i64::try_from(first)? + 1, events, durable };
            ensure!(self.queue.send(append).await.is_ok(), "the floor's writer has ended");
            is_durable.await.context("the floor's rows were not written")?;
            first += count;
        }
        Ok(())
    }
}

/// One batch after the other; whoever is in one that fails is told by the end of its channel.
async fn write_all(mut appends: mpsc::Receiver<Append>, write: impl AsyncFn(&[Append]) -> Result<()>) {
    let mut batch = Vec::new();
    while appends.recv_many(&mut batch, QUEUE_MAX).await > 0 {
        if write(&batch).await.is_ok() {
            for append in batch.drain(..) {
                // Whoever asked may be gone.
                let _ = append.durable.send(());
            }
        }
        batch.clear();
    }
}

fn rows(batch: &[Append]) -> impl Iterator<Item = (&str, i64, &'static [u8])> {
    batch.iter().flat_map(|append| {
        let numbered = append.events.iter().zip(append.first..);
        numbered.map(|(length, seq)| (append.saga.as_str(), seq, filler(*length)))
    })
}

async fn postgres(pool: &PgPool, batch: &[Append]) -> Result<()> {
    let (mut sagas, mut seqs, mut payloads) = (Vec::new(), Vec::new(), Vec::new());
    for (saga, seq, payload) in rows(batch) {
        sagas.push(saga);
        seqs.push(seq);
        payloads.push(payload);
    }
    sqlx::query("INSERT INTO floor SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::bytea[])")
        .bind(sagas)
        .bind(seqs)
        .bind(payloads)
        .execute(pool)
        .await?;
    Ok(())
}

async fn sqlite(pool: &SqlitePool, batch: &[Append]) -> Result<()> {
    let all: Vec<_> = rows(batch).collect();
    let insert = |rows: &[(&str, i64, &'static [u8])]| {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO floor ");
        insert.push_values(rows, |mut row, (saga, seq, payload)| {
            row.push_bind((*saga).to_owned()).push_bind(*seq).push_bind(*payload);
        });
        insert
    };
    if all.len() <= SQLITE_ROWS_MAX {
        // A statement by itself is its own transaction.
        insert(&all).build().execute(pool).await?;
        return Ok(());
    }
    let mut transaction = pool.begin().await?;
    for rows in all.chunks(SQLITE_ROWS_MAX) {
        insert(rows).build().execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}
