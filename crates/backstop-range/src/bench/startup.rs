//! From the start of the program to the first saga that it has ended, on a store that is not empty.

use super::backstop::Backstop;
use super::ground::{Ground, Store, connect};
use super::shape::{Requests, Saga, Shape};
use super::system::System;
use super::table::{Grid, millis};
use super::{load, page, say};
use crate::api::Api;
use crate::planting::{Anew, Model};
use crate::process::Process;
use crate::report::{Kind, Report};
use anyhow::{Context, Result};
use std::path::Path;
use tokio::time::Instant;

/// How much of it.
#[derive(Debug, Clone, clap::Args)]
pub struct Startup {
    /// Ended sagas in the store
    #[arg(long, default_value_t = 100_000)]
    pub ended: u64,
    /// Starts, each after an orderly end
    #[arg(long, default_value_t = 10)]
    pub times: usize,
}

/// Runs it.
///
/// # Errors
/// If the range itself cannot go on.
pub async fn run(program: &Path, range: &Path, startup: &Startup) -> Result<Report> {
    let ground = Ground::start(range, Store::Postgres).await?;
    let store = ground.new_store("backstop")?;
    let backstop = Backstop::start_on(program, &ground, store.clone(), &[]).await?;
    let saga = Saga { shape: Shape::Concurrent, requests: Requests::Raw, filler: 0 };
    backstop.prepare(saga).await?;
    backstop.run_one(saga, "model".to_owned()).await?;
    say(&format!("planting {} ended sagas", startup.ended));
    let pool = connect(&store).await?;
    let anew = Anew { wake_at: None, apart: true };
    Model::take(&pool, "model").await?.plant("ended-", startup.ended, &anew).await?;
    let process: &Process = backstop.coordinator();
    let mut report = Report::new("Start: from exec of `backstop serve` to the first saga that has ended");
    let (mut listening, mut ended) = (Vec::new(), Vec::new());
    for time in 0..startup.times {
        let is_well = process.terminate().await?;
        report.check(Kind::Safety, "it ends in order", is_well, format!("time {time}"));
        let began = Instant::now();
        // Not the coordinator's own start, which also waits for the address of the metrics.
        process.start().await?;
        listening.push(load::micros(began.elapsed()));
        let api = Api::at(process.address()?)?;
        let answer = api.start(saga.request(format!("first-{time}"))).await?;
        ended.push(load::micros(began.elapsed()));
        let state = answer.state();
        report.check(Kind::Safety, "the first saga ends", state == saga.shape.end(), format!("{state:?}"));
    }
    let mut grid = Grid::new(
        "Milliseconds since exec",
        "Listening: its port answers. First saga: StartSaga, three calls and two commits later, has been answered.",
        &["until"],
        &["times", "least", "median", "most"],
    );
    for (what, times) in [("listening", &mut listening), ("first saga", &mut ended)] {
        times.sort_unstable();
        let median = times.get(times.len() / 2).context("a start")?;
        let (least, most) = (times.first().context("a start")?, times.last().context("a start")?);
        grid.rows.push(vec![
            what.to_owned(),
            times.len().to_string(),
            millis(*least),
            millis(*median),
            millis(*most),
        ]);
    }
    report.figure("ended sagas in the store", startup.ended);
    report.text(grid.text());
    let mut body = String::new();
    page::html_table(&mut body, &grid);
    report
        .file("startup.html", page::document("Start", "From exec to the first saga that has ended.", &body));
    report.file(
        "startup.json",
        format!("{:#}\n", serde_json::json!({ "listening_us": listening, "first_saga_us": ended })),
    );
    Ok(report)
}
