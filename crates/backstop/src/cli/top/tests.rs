//! Stories of what two looks come to, and of what the screen shows of it.
#![allow(clippy::unwrap_used)]

use super::figures::{Order, figures};
use super::sample::{Sample, Seen};
use super::screen::{Frame, brief, rate, screen};
use crate::cli::out::Paint;
use crate::cli::tests::canned::Canned;
use crate::cli::tests::run;
use backstop_proto::v1::get_overview_response::{ParticipantOverview, Timed};
use backstop_proto::v1::{BreakerState, GetOverviewResponse};
use insta::assert_snapshot;
use std::time::Duration;

fn lasting(millis: u64) -> Option<prost_types::Duration> {
    Some(crate::cli::text::to_wire(Duration::from_millis(millis)))
}

fn timed(count: u64, recent_count: u64, mean: u64, p50: u64, p99: u64) -> Option<Timed> {
    Some(Timed { count, recent_count, mean: lasting(mean), p50: lasting(p50), p99: lasting(p99) })
}

fn participant(name: &str, count: u64, failed_count: u64, p99: u64) -> ParticipantOverview {
    ParticipantOverview {
        participant: name.into(),
        breaker_state: BreakerState::Closed.into(),
        in_flight: 12,
        in_flight_max: 64,
        waiting: 3,
        calls: timed(count, 100, p99 / 4, p99 / 5, p99),
        failed_count,
    }
}

/// A coordinator that has been up for so long and has done so much.
fn overview(up_ms: u64, done: u64) -> GetOverviewResponse {
    GetOverviewResponse {
        uptime: lasting(up_ms),
        sagas_started_count: done + 10,
        sagas_succeeded_count: done - done / 10,
        sagas_rolled_back_count: done / 10,
        live_sagas: 210,
        live_sagas_max: 5_000,
        journal_queue: 4,
        journal_queue_max: 1_024,
        journal_appends: timed(done * 2, 400, 1, 1, 12),
        lease_remaining: lasting(4_300),
        interventions: 3,
        oldest_intervention_time: Some(prost_types::Timestamp { seconds: 1_795_478_400 - 7_800, nanos: 0 }),
        participants: vec![
            participant("ledger_a", done, 0, 40),
            participant("ledger_b", done, done / 20, 210),
        ],
        ..GetOverviewResponse::default()
    }
}

fn seen(id: &str, overview: Result<GetOverviewResponse, &str>) -> Seen {
    Seen { id: id.into(), address: format!("10.0.0.{id}:7420"), overview: overview.map_err(str::to_owned) }
}

fn sample(coordinators: Vec<Seen>) -> Sample {
    let time = prost_types::Timestamp { seconds: 1_795_478_400, nanos: 0 };
    Sample { time, coordinators, note: String::new() }
}

/// Two that work and one that does not answer; ledger_b's breaker is open at one of them.
fn two_looks() -> (Sample, Sample) {
    let earlier = sample(vec![seen("1", Ok(overview(10_000, 1_000))), seen("2", Ok(overview(5_000, 500)))]);
    let mut second = overview(10_000, 1_000);
    second.participants[1].breaker_state = BreakerState::Open.into();
    second.participants.push(participant("risk", 5, 0, 3));
    let present = sample(vec![
        seen("1", Ok(overview(20_000, 2_200))),
        seen("2", Ok(second)),
        seen("3", Err("connection refused")),
    ]);
    (earlier, present)
}

fn frame() -> Frame {
    Frame { every: Duration::from_secs(1), order: "slowest", with_keys: true, ..Frame::default() }
}

fn shown(size: (usize, usize)) -> String {
    let (earlier, present) = two_looks();
    let frame = Frame { time: present.time, ..frame() };
    let figures = figures(&[&earlier], &present, Order::Slowest);
    screen(&figures, &frame, size, Paint::OFF).join("\n")
}

#[test]
fn a_screen_of_80_by_24() {
    assert_snapshot!(shown((80, 24)), @r"
    backstop top   2026-11-24T00:00:00Z   2 of 3 coordinators answer
    sagas          started 220/s   ended 220/s   rolled back 10%   refused 0.0/s
    live           420 of 10000
    interventions  3, the oldest for 2h 10m   backstop intervention list
    calls          in flight 60   waiting 15   breakers open 1

    COORDINATOR          START/S  END/S       LIVE    QUEUE APPEND P50    P99  LEASE
    10.0.0.1:7420            120    120   210/5000   4/1024      1.0ms   12ms   4.3s
    10.0.0.2:7420            100    100   210/5000   4/1024      1.0ms   12ms   4.3s
    10.0.0.3:7420         no answer: connection refused

    PARTICIPANT          CALLS/S FAILED IN FLIGHT WAITING   MEAN    P50    P99
    ledger_b                 220   5.0%    24/128       6   52ms   42ms  210ms  OPEN
    ledger_a                 220   0.0%    24/128       6   10ms  8.0ms   40ms
    risk                     1.0   0.0%     12/64       3  0.0ms  0.0ms  3.0ms

    q quit   p pause   s sort: slowest   every 1.0s, rates over the last 10 looks
    ");
}

#[test]
fn a_screen_of_120_by_40() {
    assert_snapshot!(shown((120, 40)), @r"
    backstop top   2026-11-24T00:00:00Z   2 of 3 coordinators answer
    sagas          started 220/s   ended 220/s   rolled back 10%   refused 0.0/s
    live           420 of 10000
    interventions  3, the oldest for 2h 10m   backstop intervention list
    calls          in flight 60   waiting 15   breakers open 1

    COORDINATOR                                  START/S  END/S       LIVE    QUEUE APPEND P50    P99  LEASE
    10.0.0.1:7420                                    120    120   210/5000   4/1024      1.0ms   12ms   4.3s
    10.0.0.2:7420                                    100    100   210/5000   4/1024      1.0ms   12ms   4.3s
    10.0.0.3:7420                                 no answer: connection refused

    PARTICIPANT                                  CALLS/S FAILED IN FLIGHT WAITING   MEAN    P50    P99
    ledger_b                                         220   5.0%    24/128       6   52ms   42ms  210ms  OPEN
    ledger_a                                         220   0.0%    24/128       6   10ms  8.0ms   40ms
    risk                                             1.0   0.0%     12/64       3  0.0ms  0.0ms  3.0ms

    q quit   p pause   s sort: slowest   every 1.0s, rates over the last 10 looks
    ");
}

#[test]
fn a_screen_of_any_size_keeps_within_it() {
    let (earlier, mut present) = two_looks();
    for number in 0..30 {
        present.coordinators.push(seen(&format!("9{number}"), Ok(overview(5_000, 500))));
        let another = participant(&format!("a-participant-with-a-long-name-{number}"), 7, 1, number);
        present.coordinators[1].overview.as_mut().unwrap().participants.push(another);
    }
    let figures = figures(&[&earlier], &present, Order::Busiest);
    for width in [1, 20, 79, 80, 200] {
        for height in [1, 2, 5, 9, 12, 24, 60, 300] {
            let lines = screen(&figures, &frame(), (width, height), Paint::OFF);
            assert!(lines.len() <= height, "{width}x{height}: {}", lines.len());
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}x{height}: {lines:#?}");
        }
    }
    let small = screen(&figures, &frame(), (80, 24), Paint::OFF).join("\n");
    assert!(small.contains("coordinators more") && small.contains("participants more"), "{small}");
    let large = screen(&figures, &frame(), (80, 300), Paint::OFF).join("\n");
    assert!(!large.contains(" more"), "{large}");
}

#[test]
fn a_coordinator_that_was_restarted_has_no_rate_yet() {
    let earlier = sample(vec![seen("1", Ok(overview(60_000, 9_000)))]);
    let present = sample(vec![seen("1", Ok(overview(500, 10)))]);
    let restarted = figures(&[&earlier], &present, Order::Slowest);
    assert_eq!((restarted.total.started_per_second, restarted.total.rolled_back_share), (None, None));
    assert_eq!(restarted.participants[0].calls_per_second, None);
    // A look in between, in which it was there already, tells.
    let between = sample(vec![seen("1", Ok(overview(300, 4)))]);
    let later = sample(vec![seen("1", Ok(overview(2_300, 44)))]);
    let known = figures(&[&between, &later], &later, Order::Slowest);
    assert_eq!(known.total.ended_per_second, Some(20.0));
    let alone = figures(&[], &present, Order::Slowest);
    assert_eq!(alone.total.ended_per_second, None);
    assert_eq!(alone.total.live, 210, "gauges are there at once");
}

#[test]
fn interventions_are_not_added_up() {
    let (earlier, present) = two_looks();
    let total = figures(&[&earlier], &present, Order::Slowest).total;
    assert_eq!((total.interventions, total.oldest_intervention), (3, Some(Duration::from_secs(7_800))));
    assert_eq!(total.live, 420, "live sagas are");
    assert_eq!(total.ended_per_second, Some(220.0));
    assert_eq!(total.rolled_back_share, Some(0.1));
}

#[test]
fn participants_are_ordered_and_an_open_breaker_comes_first() {
    let (earlier, present) = two_looks();
    let names = |order| {
        let figures = figures(&[&earlier], &present, order);
        figures.participants.into_iter().map(|row| row.name).collect::<Vec<_>>()
    };
    assert_eq!(names(Order::Name), ["ledger_a", "ledger_b", "risk"]);
    assert_eq!(names(Order::Slowest), ["ledger_b", "ledger_a", "risk"]);
    assert_eq!(names(Order::Busiest), ["ledger_b", "ledger_a", "risk"]);
}

#[test]
fn figures_read_as_people_say_them() {
    assert_eq!(
        [None, Some(0.0), Some(99.94), Some(120.4), Some(12_345.0)].map(rate),
        ["-", "0.0", "99.9", "120", "12.3k"]
    );
    let times = [0, 500, 9_940, 12_400, 999_400, 1_000_000].map(|us| brief(Some(Duration::from_micros(us))));
    assert_eq!(times, ["0.0ms", "0.5ms", "9.9ms", "12ms", "999ms", "1.0s"]);
}

#[tokio::test]
async fn a_snapshot_is_printed_where_there_is_no_terminal_and_names_who_does_not_answer() {
    use backstop_proto::v1::{ListCoordinatorsResponse, list_coordinators_response::Coordinator};
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = Coordinator { id: "c-2".into(), address: free.to_string(), ..Coordinator::default() };
    let server = Canned {
        overview: GetOverviewResponse { coordinator: "c-1".into(), ..overview(10_000, 1_000) },
        coordinators: ListCoordinatorsResponse { coordinators: vec![gone] },
        ..Canned::default()
    }
    .serve()
    .await;
    let ran = run(&server.url, &["top", "--every", "100ms"]).await;
    assert_eq!(ran.exit, crate::cli::Exit::Done, "{}", ran.err);
    assert!(ran.out.contains("1 of 2 coordinators answer"), "{}", ran.out);
    assert!(ran.out.contains(&format!("{free}")) && ran.out.contains("no answer: "), "{}", ran.out);
    assert!(ran.out.contains("ledger_b"), "{}", ran.out);
    let ran = run(&server.url, &["top", "--once", "--every", "100ms", "--output", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["total"]["interventions"], 3);
    assert!(
        json["coordinators"][0]["unreachable"].is_string()
            || json["coordinators"][1]["unreachable"].is_string()
    );
    assert_eq!(json["participants"][1]["p99Seconds"], 0.04);
}
