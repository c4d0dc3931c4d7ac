//! Memory over a long time at half of the highest rate: what it is at the start, at the end, and how steeply it grows.

use super::backstop::Backstop;
use super::database::Counters;
use super::ground::{Ground, Store};
use super::load::{self, Ran};
use super::measure::Stage;
use super::open::{Paced, paced};
use super::plot::{Lines, Scale, Series, lines};
use super::result::Quantiles;
use super::shape::{Requests, Saga, Shape};
use super::system::System;
use super::table::{Grid, millis};
use super::{WARM, WARM_IN_FLIGHT, number, page, say};
use crate::report::{Kind, Report};
use crate::vitals;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The loop that finds the highest rate: so long.
const PEAK: Duration = Duration::from_secs(10);

/// How much of it.
#[derive(Debug, Clone, clap::Args)]
pub struct Soak {
    /// For so long
    #[arg(long, default_value_t = 60.0)]
    pub minutes: f64,
    /// Share of the highest rate, which a closed loop with 64 in flight finds first
    #[arg(long, default_value_t = 0.5)]
    pub share: f64,
    /// Sagas a second, instead
    #[arg(long)]
    pub rate: Option<f64>,
    /// Where sagas are kept
    #[arg(long, value_enum, default_value = "postgres")]
    pub store: Store,
}

/// What it came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Soaked {
    /// Sagas a second.
    pub rate: f64,
    /// Sagas that ended as they should.
    pub ended: u64,
    /// Sagas that did not.
    pub failed: u64,
    /// From due to end.
    pub latency: Quantiles,
    /// Seconds since the start, and the coordinator's resident memory in kB then.
    pub resident_kb: Vec<(f64, u64)>,
    /// Of a straight line through all of it, in MB an hour.
    pub slope_mb_per_hour: f64,
    /// Of one through the second half.
    pub slope_of_second_half_mb_per_hour: f64,
}

/// Runs it.
///
/// # Errors
/// If the range itself cannot go on.
pub async fn run(program: &Path, range: &Path, soak: &Soak) -> Result<Report> {
    let ground = Ground::start(range, soak.store).await?;
    let counters = Counters::of(&ground).await?;
    let stage = Stage { ground, counters };
    let backstop = Arc::new(Backstop::start(program, &stage.ground, &[]).await?);
    let system: Arc<dyn System> = Arc::clone(&backstop) as _;
    let saga = Saga { shape: Shape::Concurrent, requests: Requests::Raw, filler: 0 };
    backstop.prepare(saga).await?;
    let idle_kb = vitals::of_process(backstop.pid())?.rss_kb;
    load::closed(&system, saga, "warm", WARM_IN_FLIGHT, WARM).await?;
    let rate = match soak.rate {
        Some(rate) => rate,
        None => load::closed(&system, saga, "peak", WARM_IN_FLIGHT, PEAK).await?.rate() * soak.share,
    };
    let time = Duration::from_secs_f64(soak.minutes * 60.0);
    say(&format!("{rate:.0} sagas/s for {} minutes", soak.minutes));
    let looks = tokio::spawn(looks(backstop.pid(), time));
    let Paced { ran, .. } = paced(&system, saga, "soak", rate, time).await?;
    let soaked = soaked(rate, &ran, looks.await??)?;
    report(&soaked, idle_kb, &ran)
}

async fn looks(pid: u32, time: Duration) -> Result<Vec<(f64, u64)>> {
    let began = Instant::now();
    let mut every = tokio::time::interval(LOOK_EVERY.min(time / 4));
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut looks = Vec::new();
    while began.elapsed() < time {
        every.tick().await;
        looks.push((began.elapsed().as_secs_f64(), vitals::of_process(pid)?.rss_kb));
    }
    Ok(looks)
}

fn soaked(rate: f64, ran: &Ran, resident_kb: Vec<(f64, u64)>) -> Result<Soaked> {
    let half = resident_kb.get(resident_kb.len() / 2..).unwrap_or_default();
    Ok(Soaked {
        rate,
        ended: super::measure::ended(ran),
        failed: ran.failed,
        latency: ran.latency()?,
        slope_mb_per_hour: slope(&resident_kb),
        slope_of_second_half_mb_per_hour: slope(half),
        resident_kb,
    })
}

/// Of the straight line with the least squares, in MB an hour.
fn slope(looks: &[(f64, u64)]) -> f64 {
    let count = number(looks.len().max(1));
    let mean_x = looks.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = looks.iter().map(|(_, y)| number(*y)).sum::<f64>() / count;
    let (mut above, mut below) = (0.0, 0.0);
    for (x, y) in looks {
        above += (x - mean_x) * (number(*y) - mean_y);
        below += (x - mean_x).powi(2);
    }
    if below == 0.0 { 0.0 } else { above / below * 3_600.0 / 1_024.0 }
}

fn report(soaked: &Soaked, idle_kb: u64, ran: &Ran) -> Result<Report> {
    let mut report = Report::new("Soak: the coordinator's memory under load");
    let megabytes = |kb: u64| format!("{:.2}", number(kb) / 1_024.0);
    let at = |place: Option<&(f64, u64)>| place.map_or_else(String::new, |(_, kb)| megabytes(*kb));
    let mut grid = Grid::new(
        "The coordinator's resident memory",
        "In MB; slopes in MB an hour, of the straight line with the least squares.",
        &[],
        &[
            "minutes",
            "sagas/s",
            "ended",
            "failed",
            "p50 ms",
            "p99 ms",
            "idle",
            "start",
            "end",
            "most",
            "slope",
            "of 2nd half",
        ],
    );
    let most = soaked.resident_kb.iter().map(|(_, kb)| *kb).max();
    grid.rows.push(vec![
        soaked.resident_kb.last().map_or_else(String::new, |(seconds, _)| format!("{:.0}", seconds / 60.0)),
        format!("{:.0}", soaked.rate),
        soaked.ended.to_string(),
        soaked.failed.to_string(),
        millis(soaked.latency.p50),
        millis(soaked.latency.p99),
        megabytes(idle_kb),
        at(soaked.resident_kb.first()),
        at(soaked.resident_kb.last()),
        most.map_or_else(String::new, megabytes),
        format!("{:.2}", soaked.slope_mb_per_hour),
        format!("{:.2}", soaked.slope_of_second_half_mb_per_hour),
    ]);
    report.text(grid.text());
    let text = format!("{} did not: {}", ran.failed, ran.failure.as_deref().unwrap_or_default());
    report.check(Kind::Safety, "all sagas end as they should", ran.failed == 0, text);
    let points: Vec<(f64, f64)> =
        soaked.resident_kb.iter().map(|(seconds, kb)| (seconds / 60.0, number(*kb) / 1_024.0)).collect();
    let last = points.last().map_or(1.0, |(minute, _)| *minute);
    let marks =
        (0..=6).map(|part| f64::from(part) / 6.0 * last).map(|minute| (minute, format!("{minute:.0}")));
    let svg = lines(&Lines {
        title: "Resident memory of the coordinator, in MB".to_owned(),
        marks: marks.collect(),
        axis: "minutes",
        scale: Scale::Even,
        series: vec![Series { name: "resident".to_owned(), points, is_dashed: false }],
    });
    let mut body = format!("<section>{svg}</section>");
    page::html_table(&mut body, &grid);
    report.file("soak.html", page::document("Soak", "The coordinator's memory under load.", &body));
    report.file("soak.json", format!("{:#}\n", serde_json::to_value(soaked)?));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn a_kilobyte_a_second_is_three_and_a_half_megabytes_an_hour() {
        let looks: Vec<(f64, u64)> =
            (0..100).map(|second| (f64::from(second), 5_000 + second as u64)).collect();
        assert!((slope(&looks) - 3_600.0 / 1_024.0).abs() < 1e-9);
        assert!(slope(&[]).abs() < f64::EPSILON && slope(&[(1.0, 7)]).abs() < f64::EPSILON);
    }
}
