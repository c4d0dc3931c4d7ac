//! A revision's calls, compiled: where each goes, what its request is made of, and what its reply must be.

use super::template::{Scope, Template, Visible};
use super::{descriptors, metadata};
use backstop_core::{CallSpec, DefinitionSpec, Fault, ParticipantName, Phase, StepSpec};
use http::uri::PathAndQuery;
use prost::Message;
use prost_reflect::{DescriptorPool, MessageDescriptor, MethodDescriptor};
use prost_types::FileDescriptorSet;
use std::collections::BTreeMap;

/// The parser of CEL goes down a dozen calls for each bracket, and only its own limit on nesting stops it:
/// thirty brackets overflow a runtime thread's 2 MiB, and a stack overflow ends the process. So definitions
/// are compiled on a thread with room for the deepest expression that the limit lets through. Memory is
/// touched only as far as it is used.
pub(super) const STACK_BYTES: usize = 64 << 20;

/// Every call of a revision, in the order of its steps.
#[derive(Debug)]
pub(super) struct Plan {
    steps: Vec<PlannedStep>,
}

#[derive(Debug)]
struct PlannedStep {
    action: PlannedCall,
    compensation: Option<PlannedCall>,
    query: Option<PlannedCall>,
}

/// One call.
#[derive(Debug)]
pub(super) struct PlannedCall {
    pub(super) participant: ParticipantName,
    pub(super) path: PathAndQuery,
    pub(super) request: Source,
    pub(super) response: MessageDescriptor,
    pub(super) metadata: metadata::Fixed,
}

/// What a request is made of.
#[derive(Debug)]
pub(super) enum Source {
    /// Raw bytes that StartSaga brought.
    Payload,
    Template(Box<Template>),
}

impl Plan {
    /// Compiles a definition against its message types. Milliseconds of work for each call.
    ///
    /// # Errors
    /// Every fault, with its path.
    pub(super) fn compile(spec: &DefinitionSpec, file_descriptor_set: &[u8]) -> Result<Self, Vec<Fault>> {
        let fault = |text: &str| Err(vec![Fault::new("steps", text)]);
        std::thread::scope(|scope| {
            let compiling = std::thread::Builder::new()
                .name("compile-definition".to_owned())
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, || Self::compile_here(spec, file_descriptor_set));
            match compiling.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(compiled)) => compiled,
                Ok(Err(_)) => fault("the expressions are more than the parser of CEL can take"),
                Err(_) => fault("there is no thread to compile on now; try again"),
            }
        })
    }

    fn compile_here(spec: &DefinitionSpec, file_descriptor_set: &[u8]) -> Result<Self, Vec<Fault>> {
        let pool = FileDescriptorSet::decode(file_descriptor_set)
            .map_err(|error| error.to_string())
            .and_then(descriptors::pool)
            .map_err(|message| vec![Fault::new("descriptors", message)])?;
        let methods: Vec<_> = spec.steps.iter().map(|step| Methods::of(&pool, step)).collect();
        let mut names: BTreeMap<&str, Visible> = BTreeMap::new();
        for (index, (step, methods)) in spec.steps.iter().zip(&methods).enumerate() {
            let response = methods.action.as_ref().ok().map(MethodDescriptor::output);
            names.entry(&step.name).or_insert(Visible { index, response });
        }
        let mut faults = Vec::new();
        let mut steps = Vec::with_capacity(spec.steps.len());
        for (index, (step, methods)) in spec.steps.iter().zip(&methods).enumerate() {
            let before = ancestors(spec, index);
            let may_read = |other: usize| before.get(other) == Some(&true);
            let mut compile = |phase: Phase, call: &CallSpec, method: &Result<MethodDescriptor, String>| {
                let scope = Scope {
                    phase,
                    steps: &names,
                    ancestors: &may_read,
                    response: methods.action.as_ref().ok().map(MethodDescriptor::output),
                };
                let path = format!("steps[{index}].{}", phase.as_str());
                PlannedCall::compile(call, method, &scope, &path, &mut faults, &step.name)
            };
            let action = compile(Phase::Action, &step.action, &methods.action);
            let compensation = step.compensation.as_ref().zip(methods.compensation.as_ref());
            let compensation = compensation.map(|(call, method)| compile(Phase::Compensation, call, method));
            let query = step.query.as_ref().zip(methods.query.as_ref());
            let query = query.map(|(call, method)| compile(Phase::Query, call, method));
            faults.extend(methods.query_answers_otherwise(index));
            if let (Some(action), compensation, query) = (action, compensation.flatten(), query.flatten()) {
                steps.push(PlannedStep { action, compensation, query });
            }
        }
        if faults.is_empty() { Ok(Self { steps }) } else { Err(faults) }
    }

    /// One call; `None` if the step or the phase does not exist.
    pub(super) fn call(&self, step: usize, phase: Phase) -> Option<&PlannedCall> {
        let step = self.steps.get(step)?;
        match phase {
            Phase::Action => Some(&step.action),
            Phase::Query => step.query.as_ref(),
            Phase::Compensation => step.compensation.as_ref(),
        }
    }
}

impl PlannedCall {
    fn compile(
        call: &CallSpec,
        method: &Result<MethodDescriptor, String>,
        scope: &Scope<'_>,
        path: &str,
        faults: &mut Vec<Fault>,
        step: &str,
    ) -> Option<Self> {
        let method = match method {
            Ok(method) => method,
            Err(text) => {
                faults.push(Fault::new(format!("{path}.method"), text.clone()));
                return None;
            }
        };
        let participant = ParticipantName::parse(&call.participant)
            .map_err(|error| faults.push(Fault::new(format!("{path}.participant"), error.to_string())))
            .ok();
        let request = if scope.phase == Phase::Action && call.request.is_empty() {
            Some(Source::Payload)
        } else {
            let path = format!("{path}.request");
            Template::compile(&call.request, &method.input(), scope, &path, faults)
                .map(Box::new)
                .map(Source::Template)
        };
        let uri = format!("/{}", call.method)
            .parse()
            .map_err(|_| faults.push(Fault::new(format!("{path}.method"), "is no path of a URI")))
            .ok();
        let metadata = metadata::Fixed::new(step, scope.phase);
        Some(Self {
            participant: participant?,
            path: uri?,
            request: request?,
            response: method.output(),
            metadata,
        })
    }
}

/// The methods of one step, or what is wrong with them.
struct Methods {
    action: Result<MethodDescriptor, String>,
    compensation: Option<Result<MethodDescriptor, String>>,
    query: Option<Result<MethodDescriptor, String>>,
}

impl Methods {
    fn of(pool: &DescriptorPool, step: &StepSpec) -> Self {
        let method = |call: &CallSpec| descriptors::method(pool, &call.method);
        Self {
            action: method(&step.action),
            compensation: step.compensation.as_ref().map(method),
            query: step.query.as_ref().map(method),
        }
    }

    /// A query's answer becomes the step's response, so it must be of the same type.
    fn query_answers_otherwise(&self, index: usize) -> Option<Fault> {
        let (action, query) =
            (self.action.as_ref().ok()?.output(), self.query.as_ref()?.as_ref().ok()?.output());
        (action != query).then(|| {
            Fault::new(
                format!("steps[{index}].query.method"),
                format!("answers {}, but the action answers {}", query.full_name(), action.full_name()),
            )
        })
    }
}

/// For each step, whether it must have succeeded before this one. Names that lead nowhere and cycles are
/// the core's to report.
fn ancestors(spec: &DefinitionSpec, step: usize) -> Vec<bool> {
    let mut before = vec![false; spec.steps.len()];
    let mut open = vec![step];
    while let Some(step) = open.pop() {
        let names = spec.steps.get(step).map(|step| step.depends_on.as_slice()).unwrap_or_default();
        for name in names {
            let Some(index) = spec.steps.iter().position(|step| step.name == *name) else {
                continue;
            };
            if let Some(seen) = before.get_mut(index).filter(|seen| !**seen) {
                *seen = true;
                open.push(index);
            }
        }
    }
    before
}
