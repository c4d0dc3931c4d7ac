//! From a [`DefinitionSpec`] to a [`Definition`], or to every fault that it has.
//!
//! # Not here
//! Whether methods exist and templates fit their messages: `backstop-rpc`, which knows descriptors.

use crate::definition::{CallSpec, DefinitionSpec, InDoubt, StepKind, StepSpec};
use crate::graph::{Definition, DoubtPolicy, PlannedCall, STEPS_MAX, Step, StepSet};
use crate::ids::{DefinitionName, DefinitionRef, ParticipantName, Revision, StepName};
use crate::tier::ErrorTable;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One thing wrong with what a client sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Path of the field: `steps[2].depends_on[0]`.
    pub path: String,
    /// What is wrong.
    pub description: String,
}

impl Fault {
    /// A fault at a path.
    pub fn new(path: impl Into<String>, description: impl Into<String>) -> Self {
        Self { path: path.into(), description: description.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.description)
    }
}

/// What the registry says of a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ParticipantTraits {
    /// It gives every attempt with one key the same answer, refusals included.
    pub deduplicates_by_key: bool,
    /// It implements the rollback listener.
    pub listens: bool,
}

/// Checks a whole definition.
///
/// # Errors
/// Every fault at once, each with its path, in the order of the checks.
pub fn validate(
    spec: &DefinitionSpec,
    revision: Revision,
    participants: &BTreeMap<ParticipantName, ParticipantTraits>,
    errors: Arc<ErrorTable>,
) -> Result<Definition, Vec<Fault>> {
    let mut check = Check { faults: Vec::new(), participants };
    let name = check.parse("name", &spec.name, DefinitionName::parse);
    if spec.deadline.is_some_and(|deadline| deadline.is_zero()) {
        check.fault("deadline", "must be longer than zero");
    }
    if spec.steps.is_empty() {
        check.fault("steps", "a definition has at least one step");
    }
    if spec.steps.len() > STEPS_MAX {
        check.fault("steps", format!("has {} steps; the limit is {STEPS_MAX}", spec.steps.len()));
        return Err(check.faults);
    }
    let depends_on = check.dependencies(spec);
    let order = check.topological_order(&depends_on);
    let (ancestors, descendants) = closures(&depends_on, &order);
    check.pivot_rules(spec, &ancestors);

    let mut steps = Vec::with_capacity(spec.steps.len());
    for (index, step) in spec.steps.iter().enumerate() {
        steps.extend(check.step(index, step, &depends_on[index], ancestors[index], descendants[index]));
    }
    let pivot = spec.steps.iter().position(|step| step.kind == StepKind::Pivot);
    match name {
        Some(name) if check.faults.is_empty() => Ok(Definition {
            reference: DefinitionRef { name, revision },
            steps,
            compensation_order: spec.compensation_order,
            on_failure: spec.on_failure,
            deadline: spec.deadline,
            errors,
            pivot,
        }),
        _ => Err(check.faults),
    }
}

struct Check<'a> {
    faults: Vec<Fault>,
    participants: &'a BTreeMap<ParticipantName, ParticipantTraits>,
}

impl Check<'_> {
    fn fault(&mut self, path: impl Into<String>, description: impl Into<String>) {
        self.faults.push(Fault::new(path, description));
    }

    fn parse<T, E: fmt::Display>(
        &mut self,
        path: &str,
        text: &str,
        parse: fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        parse(text).map_err(|error| self.fault(path, format!("\"{text}\": {error}"))).ok()
    }

    /// The edges by index; names that lead nowhere are faults and left out.
    fn dependencies(&mut self, spec: &DefinitionSpec) -> Vec<Vec<usize>> {
        let mut by_name = BTreeMap::new();
        for (index, step) in spec.steps.iter().enumerate() {
            if let Some(first) = by_name.get(step.name.as_str()) {
                self.fault(
                    format!("steps[{index}].name"),
                    format!("\"{}\" is the name of steps[{first}] already", step.name),
                );
            } else {
                by_name.insert(step.name.as_str(), index);
            }
        }
        let mut all = Vec::with_capacity(spec.steps.len());
        for (index, step) in spec.steps.iter().enumerate() {
            let mut edges = Vec::with_capacity(step.depends_on.len());
            for (place, dependency) in step.depends_on.iter().enumerate() {
                let path = format!("steps[{index}].depends_on[{place}]");
                match by_name.get(dependency.as_str()) {
                    None => self.fault(path, format!("there is no step \"{dependency}\"")),
                    Some(target) if *target == index => self.fault(path, "a step cannot depend on itself"),
                    Some(target) if edges.contains(target) => {
                        self.fault(path, format!("\"{dependency}\" is named twice"));
                    }
                    Some(target) => edges.push(*target),
                }
            }
            all.push(edges);
        }
        all
    }

    /// Dependencies before dependents. Steps on a cycle are reported and left out.
    fn topological_order(&mut self, depends_on: &[Vec<usize>]) -> Vec<usize> {
        let mut order: Vec<usize> = Vec::with_capacity(depends_on.len());
        let mut placed = StepSet::default();
        loop {
            let ready: Vec<usize> = (0..depends_on.len())
                .filter(|step| !placed.contains(*step))
                .filter(|step| depends_on[*step].iter().all(|dependency| placed.contains(*dependency)))
                .collect();
            if ready.is_empty() {
                break;
            }
            for step in ready {
                placed.insert(step);
                order.push(step);
            }
        }
        if order.len() == depends_on.len() {
            return order;
        }
        let waits_for: Vec<StepSet> =
            (0..depends_on.len()).map(|step| all_before(depends_on, step)).collect();
        for (step, edges) in depends_on.iter().enumerate() {
            for (place, target) in edges.iter().enumerate() {
                if waits_for[*target].contains(step) {
                    self.fault(
                        format!("steps[{step}].depends_on[{place}]"),
                        "closes a cycle: the step it names waits, near or far, for this one",
                    );
                }
            }
        }
        order
    }

    fn pivot_rules(&mut self, spec: &DefinitionSpec, ancestors: &[StepSet]) {
        let pivot = spec.steps.iter().position(|step| step.kind == StepKind::Pivot);
        for (index, step) in spec.steps.iter().enumerate() {
            let path = format!("steps[{index}].kind");
            match (pivot, step.kind) {
                (None, StepKind::Retriable) => {
                    self.fault(path, "a RETRIABLE step follows a pivot, and there is none");
                }
                (Some(pivot), StepKind::Retriable) if !ancestors[index].contains(pivot) => self.fault(
                    path,
                    format!(
                        "a RETRIABLE step must depend, near or far, on the pivot \"{}\"",
                        spec.steps[pivot].name
                    ),
                ),
                (Some(pivot), StepKind::Pivot) if pivot != index => {
                    self.fault(path, format!("there is a pivot already: \"{}\"", spec.steps[pivot].name))
                }
                (Some(pivot), StepKind::Compensatable | StepKind::ReadOnly)
                    if !ancestors[pivot].contains(index) =>
                {
                    self.fault(
                        path,
                        format!(
                            "this step may run after or beside the pivot \"{0}\": let \"{0}\" depend on it, or make \
                             it RETRIABLE",
                            spec.steps[pivot].name
                        ),
                    );
                }
                (
                    None | Some(_),
                    StepKind::Compensatable | StepKind::ReadOnly | StepKind::Pivot | StepKind::Retriable,
                ) => {}
            }
        }
    }

    fn step(
        &mut self,
        index: usize,
        spec: &StepSpec,
        depends_on: &[usize],
        ancestors: StepSet,
        descendants: StepSet,
    ) -> Option<Step> {
        let at = |field: &str| format!("steps[{index}].{field}");
        let name = self.parse(&at("name"), &spec.name, StepName::parse);
        let action = self.call(&at("action"), &spec.action);
        let compensation = spec.compensation.as_ref().map(|call| self.call(&at("compensation"), call));
        if spec.kind != StepKind::Retriable {
            self.ends_by_itself(&at("action"), &spec.action);
        }
        match (spec.kind, &compensation) {
            (StepKind::Compensatable, None) => {
                self.fault(at("compensation"), "a COMPENSATABLE step must name its compensation");
            }
            (StepKind::ReadOnly | StepKind::Pivot | StepKind::Retriable, Some(_)) => {
                self.fault(at("compensation"), "only a COMPENSATABLE step is ever compensated");
            }
            (StepKind::Compensatable, Some(_))
            | (StepKind::ReadOnly | StepKind::Pivot | StepKind::Retriable, None) => {}
        }
        let query = spec.query.as_ref().map(|call| self.call(&at("query"), call));
        if let Some(query) = &spec.query {
            self.ends_by_itself(&at("query"), query);
        }
        let traits = action
            .as_ref()
            .and_then(|call| self.participants.get(&call.participant))
            .copied()
            .unwrap_or_default();
        let doubt = self.doubt_policy(index, spec, traits);
        Some(Step {
            name: name?,
            kind: spec.kind,
            depends_on: depends_on.to_vec(),
            ancestors,
            descendants,
            action: action?,
            compensation: compensation.flatten(),
            asks: query.is_some() && spec.in_doubt != Some(InDoubt::Compensate),
            query: query.flatten(),
            doubt,
            deduplicates: traits.deduplicates_by_key,
            listens: traits.listens,
        })
    }

    fn doubt_policy(&mut self, index: usize, spec: &StepSpec, traits: ParticipantTraits) -> DoubtPolicy {
        let is_final = matches!(spec.kind, StepKind::Pivot | StepKind::Retriable);
        let path = format!("steps[{index}].in_doubt");
        match spec.in_doubt {
            Some(InDoubt::Query) => {
                if spec.query.is_none() {
                    self.fault(
                        format!("steps[{index}].query"),
                        "QUERY needs the call that tells what happened",
                    );
                }
                DoubtPolicy::Query
            }
            Some(InDoubt::Compensate) => {
                if is_final {
                    self.fault(path, "a PIVOT or RETRIABLE step is never undone: say RESEND or QUERY");
                }
                DoubtPolicy::Compensate
            }
            Some(InDoubt::Resend) => {
                // A read-only step changes nothing, so it may be sent again to anybody.
                if !traits.deduplicates_by_key && spec.kind != StepKind::ReadOnly {
                    self.fault(
                        path,
                        format!(
                            "RESEND needs a participant that deduplicates by key, and \"{}\" is not registered as such",
                            spec.action.participant
                        ),
                    );
                }
                DoubtPolicy::Resend
            }
            None if spec.kind == StepKind::ReadOnly || traits.deduplicates_by_key => DoubtPolicy::Resend,
            None if spec.query.is_some() => DoubtPolicy::Query,
            None if is_final => DoubtPolicy::Person,
            None => DoubtPolicy::Compensate,
        }
    }

    /// The attempts of this call are bounded by their number.
    fn ends_by_itself(&mut self, path: &str, spec: &CallSpec) {
        if spec.retry.give_up_after.is_some() {
            self.fault(
                format!("{path}.retry.give_up_after"),
                "only a compensation or the action of a RETRIABLE step is tried without end: say attempts_max",
            );
        }
    }

    fn call(&mut self, path: &str, spec: &CallSpec) -> Option<PlannedCall> {
        let at = |field: &str| format!("{path}.{field}");
        let participant = self.parse(&at("participant"), &spec.participant, ParticipantName::parse);
        if let Some(name) = &participant
            && !self.participants.contains_key(name)
        {
            self.fault(at("participant"), format!("no participant \"{name}\" is registered"));
        }
        if !is_method(&spec.method) {
            self.fault(
                at("method"),
                format!("\"{}\" is not of the form package.Service/Method", spec.method),
            );
        }
        if spec.timeout.is_zero() {
            self.fault(at("timeout"), "must be longer than zero");
        }
        if spec.retry.attempts_max == 0 {
            self.fault(at("retry.attempts_max"), "must be at least 1");
        }
        if spec.retry.give_up_after.is_some_and(|limit| limit.is_zero()) {
            self.fault(at("retry.give_up_after"), "must be longer than zero");
        }
        if spec.retry.initial.is_zero() {
            self.fault(at("retry.initial_backoff"), "must be longer than zero");
        }
        if spec.retry.max < spec.retry.initial {
            self.fault(at("retry.max_backoff"), "must not be shorter than initial_backoff");
        }
        Some(PlannedCall {
            participant: participant?,
            method: Arc::from(spec.method.as_str()),
            timeout: spec.timeout,
            retry: spec.retry,
        })
    }
}

fn is_method(text: &str) -> bool {
    let identifier = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    match text.split_once('/') {
        Some((service, method)) => service.split('.').all(identifier) && identifier(method),
        None => false,
    }
}

/// The steps that this one waits for, near or far; cycles are no matter.
fn all_before(depends_on: &[Vec<usize>], step: usize) -> StepSet {
    let mut before = StepSet::default();
    let mut open = depends_on[step].clone();
    while let Some(dependency) = open.pop() {
        if !before.contains(dependency) {
            before.insert(dependency);
            open.extend(&depends_on[dependency]);
        }
    }
    before
}

/// For each step, all before it and all after it.
fn closures(depends_on: &[Vec<usize>], order: &[usize]) -> (Vec<StepSet>, Vec<StepSet>) {
    let mut ancestors = vec![StepSet::default(); depends_on.len()];
    let mut descendants = vec![StepSet::default(); depends_on.len()];
    for &step in order {
        let mut before = StepSet::default();
        for &dependency in &depends_on[step] {
            before.insert(dependency);
            before.extend(ancestors[dependency]);
        }
        ancestors[step] = before;
        for ancestor in before.iter() {
            descendants[ancestor].insert(step);
        }
    }
    (ancestors, descendants)
}
