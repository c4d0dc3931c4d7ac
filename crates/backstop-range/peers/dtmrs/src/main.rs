//! dtmrs' coordinator as it ships (its store, its driver, its router and its defaults), with two doors more.
//!
//! dtmrs answers a submit when the saga is stored and lets its client ask again and again how it went. A benchmark whose
//! client waits for the end would measure its own asking. So `POST /run` stores the saga and takes its lease in one write,
//! as dtmrs' own submit does, drives it, and answers when the driver lets go. That is the kindest way to measure it: no
//! statement more than its own, and no polling. `GET /ends` counts the sagas by their state, for whoever must know
//! afterwards that they did end.
//!
//! Usage: `peer-dtmrs STORE --listen ADDRESS`; `DTMRS_*` as in dtmrs' own program. `PEER_SQLITE_SYNCHRONOUS=FULL` gives SQLite the
//! durability that Backstop has: dtmrs' own setting is NORMAL, with which a power cut takes acknowledged sagas along.

use anyhow::{Context, Result, bail};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use dtmrs::server::api::Api;
use dtmrs::server::driver::Driver;
use dtmrs::server::http::{App, router};
use dtmrs::server::saga_rows;
use dtmrs::{SagaStep, Store};
use serde::Deserialize;
use sqlx::any::AnyRow;
use sqlx::{AnyPool, Row};
use std::collections::BTreeMap;
use std::time::Duration;

const USAGE: &str = "usage: peer-dtmrs STORE --listen ADDRESS";
/// As dtmrs' own program has it.
const TICK: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, word, address] = arguments.as_slice() else { bail!(USAGE) };
    if word != "--listen" {
        bail!(USAGE);
    }
    let store = Store::open(url).await.with_context(|| format!("cannot open {url}"))?;
    if let Ok(level) = std::env::var("PEER_SQLITE_SYNCHRONOUS") {
        synchronous(&store, &level).await?;
    }
    let driver = Driver::from_env(store.clone(), format!("tc-{}", std::process::id()));
    // What a run of ours leaves behind goes on by itself, as with dtmrs' own program.
    tokio::spawn(driver.clone().run_forever(TICK));
    let api = Api::new(store.clone()).with_inline_driver(driver.clone());
    let doors = Router::new()
        .route("/run", post(run))
        .route("/ends", get(ends))
        .with_state(Peer { store, driver })
        .merge(router(App::new(api)));
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening {}", listener.local_addr()?);
    // Answers are small and alone: Nagle would hold them back.
    let listener = axum::serve::ListenerExt::tap_io(listener, |socket| {
        let _ = socket.set_nodelay(true);
    });
    axum::serve(listener, doors).await?;
    Ok(())
}

#[derive(Clone)]
struct Peer {
    store: Store,
    driver: Driver,
}

#[derive(Deserialize)]
struct Saga {
    gid: String,
    steps: Vec<SagaStep>,
}

type Failed = (StatusCode, String);

fn failed(error: impl std::fmt::Display) -> Failed {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
}

/// Answers when dtmrs has nothing left to do for this saga.
async fn run(State(peer): State<Peer>, Json(saga): Json<Saga>) -> Result<(), Failed> {
    let (mut global, branches) = saga_rows(&saga.gid, &saga.steps);
    global.owner.clone_from(&peer.driver.owner);
    global.next_cron_time = dtmrs::store::now() + peer.driver.lease;
    global.lease_until = global.next_cron_time;
    if !peer.store.create_global(&global, &branches).await.map_err(failed)? {
        return Err((StatusCode::CONFLICT, format!("there is a saga {} already", saga.gid)));
    }
    peer.driver.process(&global).await.map_err(failed)
}

async fn ends(State(peer): State<Peer>) -> Result<Json<BTreeMap<String, i64>>, Failed> {
    let pool = peer.store.pool().ok_or((StatusCode::NOT_IMPLEMENTED, "not a SQL store".to_owned()))?;
    let count = "SELECT status, COUNT(*) AS sagas FROM trans_global GROUP BY status";
    let rows: Vec<AnyRow> = sqlx::query(count).fetch_all(pool).await.map_err(failed)?;
    let read = |row: &AnyRow| Ok((row.try_get("status")?, row.try_get("sagas")?));
    rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map(Json).map_err(failed)
}

/// Sets it on every connection that the pool may have, all held at once: it is a property of the connection, dtmrs sets
/// its own when it makes one, and has no setting for it.
async fn synchronous(store: &Store, level: &str) -> Result<()> {
    let pool: &AnyPool = store.pool().context("not a SQL store")?;
    let wanted = match level {
        "NORMAL" => 1_i64,
        "FULL" => 2,
        _ => bail!("PEER_SQLITE_SYNCHRONOUS is NORMAL or FULL, not {level}"),
    };
    let mut held = Vec::new();
    for _ in 0..pool.options().get_max_connections() {
        let mut connection = pool.acquire().await?;
        sqlx::query(&format!("PRAGMA synchronous={level}")).execute(&mut *connection).await?;
        let is: i64 = sqlx::query("PRAGMA synchronous").fetch_one(&mut *connection).await?.try_get(0)?;
        if is != wanted {
            bail!("SQLite stays at synchronous={is}");
        }
        held.push(connection);
    }
    Ok(())
}
