//! Definitions as a client writes them: JSON, with short words for what most tests want.

use serde_json::{Value, json};

/// The method that test steps call.
pub(crate) const ACT: &str = "testbank.v1.Bank/Act";
/// The method that undoes it.
pub(crate) const UNDO: &str = "testbank.v1.Bank/Undo";

/// A definition of these steps.
pub(crate) fn definition(name: &str, steps: impl IntoIterator<Item = Step>) -> Value {
    json!({ "name": name, "steps": steps.into_iter().map(|step| step.0).collect::<Vec<_>>() })
}

/// A compensatable step that posts `input.cents` on `input.account`, and undoes that.
pub(crate) fn step(name: &str, participant: &str) -> Step {
    let call = |method: &str| {
        json!({
            "participant": participant,
            "method": method,
            "request": { "account": "${input.account}", "cents": "${input.cents}", "memo": name },
            "retry": { "initialBackoff": "0.005s", "maxBackoff": "0.02s" },
        })
    };
    Step(json!({ "name": name, "action": call(ACT), "compensation": call(UNDO) }))
}

/// One step in the making.
#[derive(Debug, Clone)]
pub(crate) struct Step(pub(crate) Value);

impl Step {
    /// It waits for these.
    pub(crate) fn after(mut self, names: &[&str]) -> Self {
        self.0["dependsOn"] = json!(names);
        self
    }

    /// Of a kind that has no compensation.
    pub(crate) fn kind(mut self, kind: &str) -> Self {
        self.0["kind"] = json!(format!("STEP_KIND_{kind}"));
        if let Some(step) = self.0.as_object_mut() {
            step.remove("compensation");
        }
        self
    }

    /// Sets a field by its JSON pointer: `/action/timeout`.
    pub(crate) fn with(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer begins with /");
        self.0.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent} in the step"))[field] = value.into();
        self
    }
}
