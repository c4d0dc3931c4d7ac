//! What tracing costs: the same load on coordinators that trace nothing, one saga in a hundred, and every saga, in turns
//! within one run, so that whatever else the machine does falls on all of them.
//!
//! The collector is a sink in the range's own process: it takes the requests off the wire and decodes them, as any
//! collector must, and does nothing more. Its processor time is not in the coordinators' figures; it is in the rates,
//! since all of it runs on one machine.

use super::prompt;
use crate::api::Api;
use crate::bank::Bank;
use crate::bench::{load, number};
use crate::cluster::{Cluster, Member};
use crate::definition;
use crate::report::{Kind, Report};
use crate::vitals::{self, Vitals};
use anyhow::{Context, Result, bail};
use backstop_proto::v1::SagaState;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Longest time for one saga.
const SAGA_MAX: i64 = 30;
/// Sagas before the first round: they pay for connections and plans.
const WARM: u64 = 500;

/// How much of it.
#[derive(Debug, Clone, clap::Args)]
pub struct Tracing {
    /// Sagas in one coordinator's turn
    #[arg(long, default_value_t = 3_000)]
    pub sagas: u64,
    /// Turns of each coordinator
    #[arg(long, default_value_t = 7)]
    pub rounds: u64,
    /// Sagas in flight
    #[arg(long, default_value_t = 64)]
    pub in_flight: usize,
}

#[derive(Clone, Default)]
struct Sink {
    spans: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.get_ref().resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        let spans = scopes.map(|scope| scope.spans.len() as u64).sum();
        self.spans.fetch_add(spans, Ordering::Relaxed);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// One way of tracing and what it came to.
struct Way {
    name: &'static str,
    member: Member,
    api: Api,
    rates: Vec<f64>,
    cpu_us: Vec<f64>,
    spans: u64,
}

impl Way {
    async fn vitals(&self) -> Result<Vitals> {
        vitals::of_process(self.member.coordinator.pid().await?.as_raw_nonzero().get())
    }
}

/// Runs it.
///
/// # Errors
/// If the range itself cannot go on.
pub async fn run(program: PathBuf, tracing: &Tracing) -> Result<Report> {
    let sink = Sink::default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let service = TraceServiceServer::new(sink.clone());
    let serving =
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
    let report = measure(program, tracing, &sink, &endpoint).await;
    serving.abort();
    report
}

async fn measure(program: PathBuf, tracing: &Tracing, sink: &Sink, endpoint: &str) -> Result<Report> {
    let mut cluster = Cluster::start(&program).await?;
    let to = ("BACKSTOP_TELEMETRY__OTLP_ENDPOINT", endpoint);
    let share = |share| ("BACKSTOP_TELEMETRY__SAMPLE_RATIO", share);
    let settings: [(&str, Vec<(&str, &str)>); 3] =
        [("off", vec![]), ("1 %", vec![to, share("0.01")]), ("100 %", vec![to, share("1.0")])];
    for (_, settings) in &settings {
        cluster.add(settings).await?;
    }
    let [risk, a, b] = definition::PARTICIPANTS;
    let bank = Bank::start(&[risk, a, b], prompt()).await?;
    let apis = super::register(&cluster, &bank).await?;
    let mut ways = Vec::new();
    for (((name, _), member), api) in settings.iter().zip(cluster.members()).zip(apis) {
        let member = member.clone();
        ways.push(Way { name, member, api, rates: vec![], cpu_us: vec![], spans: 0 });
    }
    let mut failed = 0;
    for way in &ways {
        failed += load(&way.api, &format!("warm-{}", way.name), WARM, tracing.in_flight).await?;
    }
    for round in 0..tracing.rounds {
        // Each begins a round in its turn.
        ways.rotate_left(1);
        for way in &mut ways {
            let before = (way.vitals().await?, sink.spans());
            let began = Instant::now();
            failed +=
                load(&way.api, &format!("{}-{round}", way.name), tracing.sagas, tracing.in_flight).await?;
            let took = began.elapsed();
            // The last spans are sent within a second; they belong to this turn.
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            let after = way.vitals().await?;
            way.rates.push(per(tracing.sagas, took.as_secs_f64()));
            way.cpu_us.push(per((after.cpu_ms - before.0.cpu_ms) * 1_000, number(tracing.sagas)));
            way.spans += sink.spans() - before.1;
        }
    }
    report(tracing, ways, failed)
}

impl Sink {
    fn spans(&self) -> u64 {
        self.spans.load(Ordering::Relaxed)
    }
}

fn report(tracing: &Tracing, mut ways: Vec<Way>, failed: u64) -> Result<Report> {
    let mut report = Report::new(&format!(
        "What tracing costs: {} in flight, {} rounds of {} sagas for each, three calls a saga",
        tracing.in_flight, tracing.rounds, tracing.sagas
    ));
    ways.sort_by_key(|way| ["off", "1 %", "100 %"].iter().position(|name| *name == way.name));
    let off = ways.first().context("a coordinator that traces nothing")?;
    let (off_rates, off_cpu) = (off.rates.clone(), off.cpu_us.clone());
    for way in &mut ways {
        // Round by round against the one that traces nothing: what the machine does meanwhile falls on both.
        let of_off = |values: &[f64], off: &[f64]| {
            let mut ratios: Vec<f64> = values.iter().zip(off).map(|(value, off)| value / off).collect();
            (median(&mut ratios), ratios.first().copied(), ratios.last().copied())
        };
        let (rate_ratio, least, most) = of_off(&way.rates, &off_rates);
        let (cpu_ratio, ..) = of_off(&way.cpu_us, &off_cpu);
        let (rate, cpu) = (median(&mut way.rates), median(&mut way.cpu_us));
        let spans = number(way.spans) / number(tracing.rounds * tracing.sagas);
        report.figure(
            way.name,
            format!(
                "{rate:.0} sagas/s ({rate_ratio:.3} of off; rounds {:.2} to {:.2}), {cpu:.0} us of the coordinator's \
                 processor a saga ({cpu_ratio:.3} of off), {spans:.2} spans a saga",
                least.unwrap_or(f64::NAN),
                most.unwrap_or(f64::NAN),
            ),
        );
    }
    report.check(Kind::Safety, "all sagas succeed", failed == 0, format!("{failed} did not"));
    let off_tells_nothing = ways.first().is_some_and(|way| way.spans == 0);
    report.check(Kind::Safety, "off tells nothing", off_tells_nothing, "it sent spans");
    let all_are_told = ways.last().is_some_and(|way| way.spans >= tracing.rounds * tracing.sagas * 4);
    report.check(Kind::Reach, "all of 100 % are told", all_are_told, "spans are missing");
    Ok(report)
}

fn per(count: u64, of: f64) -> f64 {
    number(count) / of
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs sagas, so many at once; answers how many did not succeed.
async fn load(api: &Api, prefix: &str, count: u64, in_flight: usize) -> Result<u64> {
    let (api, prefix) = (api.clone(), prefix.replace(' ', ""));
    let ran = load::times(in_flight, count, move |number| {
        let api = api.clone();
        let mut request = definition::request(&format!("{prefix}-{number}"), definition::CONCURRENT, 1, 2, 5);
        request.wait = Some(prost_types::Duration { seconds: SAGA_MAX, nanos: 0 });
        async move {
            let state = api.start(request).await?.state();
            if state == SagaState::Succeeded { Ok(()) } else { bail!("it is {state:?}") }
        }
    });
    Ok(ran.await?.failed)
}
