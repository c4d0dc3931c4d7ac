//! Everything goes wrong, by plan or by seed, under open load; and when all is quiet the ledgers' books, the
//! journals and the calls must agree.
//!
//! The ledgers are processes too, with books on disk, and are hurt like everything else; one may die for good.
//! What is read at the end is what each of them tells (of the dead one: what its file holds) while all
//! coordinators are stopped.
//!
//! # Not here
//! What must be true: `verdict`, and the oracles. What is shown: `shown`.

mod shown;
mod verdict;

use super::{list, list_in, quiet};
use crate::api::Api;
use crate::call::Call;
use crate::client::{self, Load};
use crate::cluster::Cluster;
use crate::faults::plan::{Plan, Wish, by_seed};
use crate::faults::{Fault, Targets, inflict};
use crate::journal::{self, Event};
use crate::ledger::{Common, Ledger};
use crate::moment::{Moment, now};
use crate::oracle::ledgers::{Case, Node};
use crate::payment::{self, ACCOUNTS, LEDGERS_MIN, OPENING_BALANCE, Payment, ledger_name};
use crate::process::eventually;
use crate::report::{Kind, Report};
use anyhow::{Context, Result, bail};
use backstop_proto::v1::{BranchState, Saga, SagaState};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for the last saga once all is healed and nothing is to be given up any more.
const QUIET_WITHIN: Duration = Duration::from_secs(90);
/// Longest wait for an answer once all is quiet.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Lines of each coordinator's log that a failed run tells.
const LOG_LINES: usize = 60;
/// Rounds of trying again by hand.
const RETRIES_MAX: usize = 5;

/// How much of it.
#[derive(Debug, Clone, clap::Args)]
pub struct Chaos {
    /// How long load and faults last
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// The same in minutes
    #[arg(long, conflicts_with = "seconds")]
    pub minutes: Option<u64>,
    /// What the faults, the payments and the ledgers' moods follow from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Sagas a second
    #[arg(long, default_value_t = 100)]
    pub rate: u32,
    /// Coordinators; at least two
    #[arg(long, default_value_t = 3)]
    pub coordinators: usize,
    /// Ledgers; at least three
    #[arg(long, default_value_t = 4)]
    pub ledgers: usize,
    /// Seconds from one fault to the next
    #[arg(long, default_value_t = 5)]
    pub fault_every: u64,
    /// The faults, from this TOML file instead of the seed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dead_ledger", "fault_every"])]
    pub plan: Option<PathBuf>,
    /// One ledger dies in the first half and never comes back
    #[arg(long)]
    pub dead_ledger: bool,
    /// Seconds after which a compensation that is tried in vain is left to a person, if a ledger dies; longer
    /// than any fault that heals
    #[arg(long, default_value_t = 30)]
    pub give_up_after: u64,
}

impl Chaos {
    fn length(&self) -> Duration {
        Duration::from_secs(self.minutes.map_or(self.seconds, |minutes| minutes.saturating_mul(60)))
    }
}

/// The programs that it runs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `backstop`.
    pub backstop: PathBuf,
    /// `backstop-range`, for the ledgers.
    pub range: PathBuf,
}

/// Branches at living ledgers that were given up and tried again by hand.
struct Retried {
    count: usize,
    /// The transcript of the first saga that had one, as it was before.
    first: Vec<String>,
}

/// What was seen, for the verdict and for the sheet.
struct Seen {
    begin: Moment,
    load_ended: Moment,
    healed: Moment,
    settled: Moment,
    retried: Retried,
    plan: Plan,
    targets: Targets,
    faults: Vec<Fault>,
    outcome: client::Outcome,
    sagas: Vec<Saga>,
    cases: BTreeMap<String, Case>,
    /// Interventions whose input is not what they were started with.
    odd_inputs: Vec<String>,
    nodes: Vec<Node>,
    calls: Vec<Call>,
    unread: usize,
    journals: BTreeMap<String, Vec<Event>>,
}

/// Runs it.
///
/// # Errors
/// If the range itself cannot go on: that says nothing about Backstop.
pub async fn run(programs: &Programs, chaos: &Chaos) -> Result<Report> {
    if chaos.coordinators < 2 || chaos.ledgers < LEDGERS_MIN {
        bail!("chaos needs two coordinators at least (one stays untouched), and {LEDGERS_MIN} ledgers");
    }
    let mut cluster = Cluster::start(&programs.backstop).await?;
    cluster.add_many(chaos.coordinators, &[]).await?;
    let targets = Targets {
        coordinators: cluster.members().iter().map(|member| member.coordinator.name().to_owned()).collect(),
        ledgers: (0..chaos.ledgers).map(ledger_name).collect(),
    };
    let plan = plan(chaos, &targets)?;
    let folder = tempfile::tempdir()?;
    let common = Common {
        program: programs.range.clone(),
        folder: folder.path().to_owned(),
        accounts: ACCOUNTS,
        opening_balance: OPENING_BALANCE,
        moods: Some(chaos.seed),
    };
    let mut ledgers = Vec::new();
    for name in &targets.ledgers {
        ledgers.push(Arc::new(Ledger::start_new(name, &common).await?));
    }
    let apis = cluster.apis()?;
    register(&apis, &ledgers, chaos, &plan).await?;

    let (seed, count) = (chaos.seed, chaos.ledgers);
    let load = Load {
        rate: chaos.rate,
        count: u64::from(chaos.rate) * chaos.length().as_secs(),
        request: Arc::new(move |number| Payment::of(seed, number, count).request()),
    };
    let begin = now();
    let loaded = async {
        let outcome = client::run(&load, &apis).await;
        (outcome, now())
    };
    let ((outcome, load_ended), faults) = tokio::join!(loaded, inflict(&plan, &cluster, &ledgers));
    let faults = faults?;
    let healed = now();
    let patience = QUIET_WITHIN + Duration::from_secs(chaos.give_up_after);
    quiet(&apis, patience).await;
    let retried = retry_the_living(&apis, &plan, patience).await?;
    let settled = now();

    let sagas = list(&apis).await?;
    let (cases, odd_inputs) = cases(&sagas, &apis, &load, chaos).await?;
    let (nodes, journals) = (freeze(&cluster, &ledgers, &plan).await?, journal::all(cluster.pool()).await?);
    let mut calls: Vec<Call> = ledgers.iter().flat_map(|ledger| ledger.calls()).collect();
    calls.sort_by_key(|call| call.arrived);
    let unread = ledgers.iter().map(|ledger| ledger.unread()).sum();
    let seen = Seen {
        begin,
        load_ended,
        healed,
        settled,
        retried,
        plan,
        targets,
        faults,
        outcome,
        sagas,
        cases,
        odd_inputs,
        nodes,
        calls,
        unread,
        journals,
    };
    let dead = if seen.plan.dead().next().is_some() { ", with a ledger that stays dead" } else { "" };
    let length = chaos.length().as_secs();
    let mut report = Report::new(&format!("chaos, seed {seed}, {length} s at {}/s{dead}", chaos.rate));
    let odd = verdict::judge(&mut report, &seen);
    shown::fill(&mut report, &seen, chaos)?;
    if let Some(odd) = odd {
        tell(&mut report, &odd, &apis, &seen).await;
    }
    if !report.passed() {
        report.story([cluster.logs(LOG_LINES)]);
    }
    Ok(report)
}

fn plan(chaos: &Chaos, targets: &Targets) -> Result<Plan> {
    let Some(file) = &chaos.plan else {
        return Ok(by_seed(
            &Wish {
                seed: chaos.seed,
                length: chaos.length(),
                every: Duration::from_secs(chaos.fault_every.max(1)),
                dead_ledger: chaos.dead_ledger,
            },
            targets,
        ));
    };
    let read = || Plan::read(&std::fs::read_to_string(file)?, targets);
    read().with_context(|| format!("{}", file.display()))
}

/// Registers ledgers and payments.
async fn register(apis: &[Api], ledgers: &[Arc<Ledger>], chaos: &Chaos, plan: &Plan) -> Result<()> {
    let first = apis.first().context("a coordinator")?;
    first.enlist(ledgers.iter().map(|ledger| ledger.endpoint()).collect(), 0).await?;
    let give_up_after = plan.dead().next().map(|_| Duration::from_secs(chaos.give_up_after));
    for definition in payment::definitions(ledgers.len(), super::CALL_TIMEOUT, give_up_after) {
        first.define(definition).await?;
    }
    Ok(())
}

/// Does what an operator does with a branch that was given up while its ledger was only away: tries it again.
/// A fault that lasts longer than `give_up_after`, or a machine that is slow enough, leaves such branches; those at
/// dead ledgers are left as they are. Answers how many.
async fn retry_the_living(apis: &[Api], plan: &Plan, patience: Duration) -> Result<Retried> {
    let (mut retried, mut first) = (0, Vec::new());
    for _ in 0..RETRIES_MAX {
        let before = retried;
        for saga in list_in(apis, "state = \"NEEDS_INTERVENTION\"").await? {
            let saga = get(apis, &saga.id).await?;
            for branch in saga.branches {
                let is_dead = plan.dead().any(|name| name == branch.participant);
                if branch.state() == BranchState::Stuck && !is_dead {
                    let look = || async {
                        for api in apis {
                            if api.retry_branch(&saga.id, &branch.step).await.is_ok() {
                                return Ok(Some(()));
                            }
                        }
                        Ok(None)
                    };
                    eventually("a branch to be retried", ANSWER_WITHIN, look).await?;
                    retried += 1;
                    if first.is_empty() {
                        first.clone_from(&saga.transcript);
                    }
                }
            }
        }
        if retried == before {
            break;
        }
        quiet(apis, patience).await;
    }
    Ok(Retried { count: retried, first })
}

/// What each saga was to do and where it stands; of interventions, the branches too, and those whose input is
/// not what they were started with.
async fn cases(
    sagas: &[Saga],
    apis: &[Api],
    load: &Load,
    chaos: &Chaos,
) -> Result<(BTreeMap<String, Case>, Vec<String>)> {
    let states: BTreeMap<&str, SagaState> =
        sagas.iter().map(|saga| (saga.id.as_str(), saga.state())).collect();
    let (mut cases, mut odd) = (BTreeMap::new(), Vec::new());
    for number in 0..load.count {
        let payment = Payment::of(chaos.seed, number, chaos.ledgers);
        // One that was never accepted is the verdict's affair.
        let Some(&state) = states.get(payment.saga.as_str()) else { continue };
        let mut branches = Vec::new();
        if state == SagaState::NeedsIntervention {
            let saga = get(apis, &payment.saga).await?;
            if saga.input != payment.request().input {
                odd.push(format!("{}: {:?}", payment.saga, saga.input));
            }
            branches = saga.branches;
        }
        cases.insert(payment.saga.clone(), Case { payment, state, branches });
    }
    Ok((cases, odd))
}

/// A saga in full, from whoever answers.
async fn get(apis: &[Api], id: &str) -> Result<Saga> {
    let look = || async {
        for api in apis {
            if let Ok(saga) = api.get_in_full(id).await {
                return Ok(Some(saga));
            }
        }
        Ok(None)
    };
    eventually("a saga to be shown", ANSWER_WITHIN, look).await
}

/// Stops every coordinator, reads all books, and lets them go on.
async fn freeze(cluster: &Cluster, ledgers: &[Arc<Ledger>], plan: &Plan) -> Result<Vec<Node>> {
    for member in cluster.members() {
        member.coordinator.freeze().await?;
    }
    let mut nodes = Vec::new();
    for ledger in ledgers {
        let is_dead = plan.dead().any(|name| name == ledger.name());
        let books = if is_dead { ledger.read_file().await } else { ledger.snapshot().await };
        let books = books.with_context(|| format!("the books of {}", ledger.name()))?;
        let name = ledger.name().to_owned();
        nodes.push(Node { name, opening_balance: OPENING_BALANCE, books, is_dead });
    }
    for member in cluster.members() {
        member.coordinator.thaw().await?;
    }
    Ok(nodes)
}

/// Tells the story of one saga: its transcript, its calls, and what the books have of it.
async fn tell(report: &mut Report, saga: &str, apis: &[Api], seen: &Seen) {
    report.story([format!("saga {saga}")]);
    match get(apis, saga).await {
        Ok(saga) => report.story(saga.transcript),
        Err(error) => report.story([format!("{error:#}")]),
    }
    report.story(["as the ledgers saw it:".to_owned()]);
    let calls = seen.calls.iter().filter(|call| call.saga == saga);
    report.story(calls.map(|call| call.line(seen.begin)));
    report.story(["in the books:".to_owned()]);
    for node in &seen.nodes {
        let entries = node.books.entries.iter().filter(|entry| entry.saga == saga);
        report.story(entries.map(|entry| format!("{}: {entry:?}", node.name)));
    }
}

/// Reports the longest standstills; answers the saga that stood still too long.
pub(super) fn standstills(
    report: &mut Report,
    longest: &crate::standstill::Longest,
    max: Duration,
) -> Option<String> {
    use crate::moment::{micros, shown};
    for (name, found) in [("standstill", &longest.normal), ("standstill in an outage", &longest.in_outage)] {
        let line = found.as_ref().map_or_else(
            || "none".to_owned(),
            |found| format!("{}  {} from {}", shown(found.idle), found.saga, found.between),
        );
        report.figure(name, line);
    }
    let worst = longest.normal.as_ref().filter(|worst| worst.idle > micros(max))?;
    let text = format!("{} stood still for {}, more than {max:?}", worst.saga, shown(worst.idle));
    report.check(Kind::Time, "standstill", false, text);
    Some(worst.saga.clone())
}
