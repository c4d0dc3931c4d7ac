//! What a world is made of, by its seed: participants with their habits, definitions, and limits that are narrow enough
//! to be reached.
//!
//! # Not here
//! Amounts: each step moves a fixed sum, and those of one definition add up to nothing, so a saga that is all done or all
//! undone leaves the sum over all accounts as it was.

use crate::dice::Dice;
use crate::options::{Class, Options};
use backstop_core::{
    CallSpec, CompensationOrder, Definition, DefinitionSpec, ErrorTable, InDoubt, OnFailure, ParticipantName,
    ParticipantTraits, RetryPolicy, Revision, StepKind, StepSpec, Timestamp, validate,
};
use backstop_engine::Settings;
use backstop_engine::ports::store::Participant;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Most steps of a definition.
const STEPS_MAX: u64 = 8;

/// A participant and what can be relied on of it.
#[derive(Debug, Clone)]
pub(crate) struct Habits {
    pub(crate) name: ParticipantName,
    /// It has a barrier: one answer for each key, and no action after its compensation.
    pub(crate) keyed: bool,
    pub(crate) listens: bool,
    pub(crate) in_flight_max: u32,
}

/// A definition with what its steps move.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) spec: DefinitionSpec,
    pub(crate) definition: Arc<Definition>,
    /// What each step adds to its participant's accounts.
    pub(crate) amounts: Vec<i128>,
}

/// All that is fixed before anything happens.
pub(crate) struct Plans {
    pub(crate) machines: usize,
    pub(crate) cast: Vec<Habits>,
    pub(crate) plans: Vec<Plan>,
    pub(crate) settings: Settings,
    /// The store's clock may jump ahead by more than any margin: then even a lease that was asked for in time may be
    /// over, and only a barrier helps.
    pub(crate) clock_leaps: bool,
    /// Millionths by which the store's clock runs fast.
    pub(crate) drift: i64,
    /// Somebody looks after what waits for a person.
    pub(crate) with_people: bool,
    /// How long things go wrong at most.
    pub(crate) trouble_lasts: Duration,
}

impl Plans {
    pub(crate) fn of(options: &Options) -> Result<Self, String> {
        let dice = Dice::of(options.seed, "plans");
        let clock_leaps = options.has(Class::Clocks) && dice.percent(25);
        let drift = if options.has(Class::Clocks) {
            10_000 - i64::try_from(dice.roll(20_001)).unwrap_or(0)
        } else {
            0
        };
        let mut cast = Vec::new();
        for n in 0..3 + dice.roll(4) {
            let name = ParticipantName::parse(&format!("bank-{n}")).map_err(|error| error.to_string())?;
            let keyed = clock_leaps || dice.percent(55);
            cast.push(Habits {
                name,
                keyed,
                listens: dice.percent(50),
                in_flight_max: if dice.percent(40) {
                    1 + u32::try_from(dice.roll(6)).unwrap_or(0)
                } else {
                    0
                },
            });
        }
        let plans = (0..3 + dice.roll(3)).map(|n| plan(&dice, n, &cast)).collect::<Result<_, _>>()?;
        let machines = 2 + dice.place(3);
        Ok(Self {
            machines,
            cast,
            plans,
            settings: settings(options, &dice),
            clock_leaps,
            drift,
            with_people: dice.percent(80),
            trouble_lasts: dice.ms(20_000, 60_000),
        })
    }
}

impl Habits {
    pub(crate) fn registration(&self) -> Participant {
        Participant {
            name: self.name.clone(),
            endpoints: vec!["http://127.0.0.1:1".to_owned()],
            deduplicates_by_key: self.keyed,
            rollback_listener: self.listens,
            in_flight_max: self.in_flight_max,
            keepalive: Duration::from_secs(300),
            updated_at: Timestamp(0),
        }
    }
}

fn settings(options: &Options, dice: &Dice) -> Settings {
    let mut settings = Settings {
        park_after: dice.ms(1_000, 4_000),
        park_max: Duration::from_secs(15),
        command_patience: Duration::from_secs(8),
        retention_every: Duration::from_secs(3_600),
        ..Settings::default()
    };
    if options.has(Class::Load) {
        settings.live_sagas_max = 3 + dice.place(30);
        settings.journal_queue_max = 1 + dice.place(12);
        settings.batch_events_max = 1 + dice.place(40);
        settings.calls_waiting_max = 1 + dice.place(8);
        settings.takeover_batch_max = 1 + dice.place(16);
        settings.resets_per_second_max = 2 + u32::try_from(dice.roll(40)).unwrap_or(0);
        settings.ride_along_max = dice.ms(0, 300);
    }
    settings
}

fn retry(dice: &Dice) -> RetryPolicy {
    let initial = dice.ms(20, 300);
    RetryPolicy {
        initial,
        max: initial + dice.ms(0, 2_000),
        attempts_max: 1 + u32::try_from(dice.roll(4)).unwrap_or(0),
        give_up_after: None,
    }
}

fn call(dice: &Dice, participant: &str, method: &str) -> CallSpec {
    CallSpec {
        participant: participant.to_owned(),
        method: format!("bank.v1.Service/{method}"),
        request: "{}".to_owned(),
        timeout: dice.ms(500, 2_500),
        retry: retry(dice),
    }
}

fn plan(dice: &Dice, number: u64, cast: &[Habits]) -> Result<Plan, String> {
    let count = usize::try_from(1 + dice.roll(STEPS_MAX)).unwrap_or(1);
    let pivot = dice.percent(35).then(|| dice.place(count));
    let mut steps: Vec<StepSpec> = Vec::new();
    for index in 0..count {
        let kind = match pivot {
            Some(pivot) if index == pivot => StepKind::Pivot,
            Some(pivot) if index > pivot => StepKind::Retriable,
            Some(_) | None if dice.percent(12) => StepKind::ReadOnly,
            Some(_) | None => StepKind::Compensatable,
        };
        steps.push(step(dice, index, kind, pivot, cast));
    }
    let spec = DefinitionSpec {
        name: format!("plan-{number}"),
        deadline: dice.percent(25).then(|| dice.ms(400, 12_000)),
        compensation_order: dice
            .pick(&[CompensationOrder::Lifo, CompensationOrder::Concurrent], CompensationOrder::ReverseDag),
        on_failure: if dice.percent(40) { OnFailure::Cancel } else { OnFailure::Drain },
        steps,
        ..DefinitionSpec::default()
    };
    let spec = match dice.roll(3) {
        0 => DefinitionSpec { compensation_order: CompensationOrder::ReverseDag, ..spec },
        _ => spec,
    };
    let traits: BTreeMap<_, _> = cast
        .iter()
        .map(|habits| {
            let traits = ParticipantTraits { deduplicates_by_key: habits.keyed, listens: habits.listens };
            (habits.name.clone(), traits)
        })
        .collect();
    let definition = validate(&spec, Revision(1), &traits, Arc::new(ErrorTable::default()))
        .map_err(|faults| format!("{spec:?}: {faults:?}"))?;
    let amounts = amounts(dice, &spec);
    Ok(Plan { spec, definition: Arc::new(definition), amounts })
}

fn step(dice: &Dice, index: usize, kind: StepKind, pivot: Option<usize>, cast: &[Habits]) -> StepSpec {
    let name = |index: usize| format!("s{index}");
    let depends_on: Vec<String> = match pivot {
        // All that comes before the pivot does so by the graph, too.
        Some(pivot) if index == pivot => (0..pivot).map(name).collect(),
        Some(pivot) if index > pivot => {
            let first = pivot + dice.place(index - pivot);
            if first == pivot { vec![name(pivot)] } else { vec![name(pivot), name(first)] }
        }
        // A chain, a fork, a join, or anything between.
        Some(_) | None => match dice.roll(4) {
            _ if index == 0 => Vec::new(),
            0 => Vec::new(),
            1 => vec![name(index - 1)],
            2 => vec![name(dice.place(index))],
            _ => (0..index).filter(|_| dice.percent(50)).map(name).collect(),
        },
    };
    let habits = &cast[dice.place(cast.len())];
    let participant = habits.name.as_str();
    let is_final = matches!(kind, StepKind::Pivot | StepKind::Retriable);
    let asks = kind != StepKind::ReadOnly && dice.percent(20);
    let in_doubt = match dice.roll(5) {
        _ if asks => Some(InDoubt::Query),
        0 if !is_final && kind != StepKind::ReadOnly => Some(InDoubt::Compensate),
        _ => None,
    };
    StepSpec {
        name: name(index),
        kind,
        depends_on,
        action: call(dice, participant, "Do"),
        compensation: (kind == StepKind::Compensatable).then(|| call(dice, participant, "Undo")),
        in_doubt,
        query: asks.then(|| call(dice, participant, "Ask")),
    }
}

/// What each step moves; together nothing.
fn amounts(dice: &Dice, spec: &DefinitionSpec) -> Vec<i128> {
    let mut amounts = vec![0; spec.steps.len()];
    let moving: Vec<usize> =
        (0..spec.steps.len()).filter(|index| spec.steps[*index].kind != StepKind::ReadOnly).collect();
    let mut sum = 0;
    for index in moving.iter().skip(1) {
        let amount = i128::from(dice.roll(2_000)) - 1_000;
        amounts[*index] = amount;
        sum += amount;
    }
    if let Some(first) = moving.first().filter(|_| moving.len() > 1) {
        amounts[*first] = -sum;
    }
    amounts
}
