//! The story of a saga that needs a person: the pager, the list, the word that settles it, and the silence after it.

use super::parts::Stack;
use super::stories::{POOR, Seen, number};
use crate::process::command;
use anyhow::{Context, Result, bail};
use serde_json::Value;

const ID: &str = "stack-payout";
const DEFINITION: &str = "xtask/src/stack/payout.yaml";
/// Exit code of `saga start --wait` when the saga needs a person.
const NEEDS_INTERVENTION: i32 = 4;

pub(super) fn tell(stack: &Stack, seen: &mut Seen) -> Result<()> {
    backstop(stack, &["definition", "register", DEFINITION], 0)?;
    let input = format!(r#"{{"from": "{POOR}", "to": "somebody", "amount_minor": "250000"}}"#);
    let start = ["saga", "start", "payout", "--id", ID, "--wait", "30s", "--input", &input];
    backstop(stack, &start, NEEDS_INTERVENTION)?;
    stack.processes.say(&format!("{ID} stands in NEEDS_INTERVENTION; backstop intervention list says"));
    for line in backstop(stack, &["intervention", "list"], 0)?.lines() {
        println!("            {line}");
    }
    for (what, query) in [
        (
            "the intervention is counted",
            r#"max(backstop_interventions_by_definition{definition="payout"}) == 1"#,
        ),
        ("and has an age", r#"max(backstop_intervention_age_seconds{definition="payout"}) > 0"#),
        (
            "the alert InterventionOpen fires",
            r#"ALERTS{alertname="InterventionOpen", alertstate="firing", severity="page", definition="payout"}"#,
        ),
        (
            "the alert BranchStuck fires, at the counter's first value",
            r#"ALERTS{alertname="BranchStuck", alertstate="firing", definition="payout", step="pay", participant="ledger_a", fin_code="FIN-40005"}"#,
        ),
    ] {
        seen.until(&format!("Prometheus: {what}"), || number(stack, query));
    }
    seen.until("the pager was called because of it", || called(stack, "InterventionOpen", "firing"));
    let by_hand = ["--resolution", "took-effect", "--reason", "paid at the counter", "--by", "stack"];
    backstop(stack, &[&["branch", "resolve", ID, "pay"], by_hand.as_slice()].concat(), 0)?;
    stack.processes.say(&format!("backstop branch resolve {ID} pay {}", by_hand.join(" ")));
    seen.until("Prometheus: nobody waits any more", || number(stack, "max(backstop_interventions) == 0"));
    seen.until("Prometheus: InterventionOpen is over", || {
        let query = r#"count(ALERTS{alertname="InterventionOpen", alertstate="firing"}) or vector(0)"#;
        match number(stack, query)? {
            0.0 => Ok(()),
            open => bail!("{open} of them fire"),
        }
    });
    Ok(())
}

/// The alert in what was posted to the pager.
fn called(stack: &Stack, name: &str, status: &str) -> Result<()> {
    let posts = stack.pager.taken();
    let pages =
        posts.iter().filter(|(path, _)| path == "/page").filter_map(|(_, body)| body["alerts"].as_array());
    let is_it = |alert: &Value| alert["labels"]["alertname"] == name && alert["status"] == status;
    pages
        .flatten()
        .find(|alert| is_it(alert))
        .map(drop)
        .with_context(|| format!("nobody was called for {name}"))
}

/// What a command of the program's says.
fn backstop(stack: &Stack, words: &[&str], expected: i32) -> Result<String> {
    let mut call = command(&stack.backstop);
    call.args(["--server", &format!("http://{}", stack.coordinators[1])]).args(words);
    let output = stack.exporting(&mut call).output()?;
    if output.status.code() != Some(expected) {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("backstop {}: {} instead of {expected}: {said}", words.join(" "), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
