//! A rolling upgrade: the version before this one and this one side by side on one Postgres, on this one's schema,
//! each taking over the other's sagas.
//!
//! Not here: statements of the version before on the new schema, one by one: `backstop-sql`'s `tests/upgrade.rs`.

use crate::common::api::{shown, state};
use crate::common::server::{BINARY, backstop};
use crate::common::{Api, Backstop, Bank, Engine, Gate, Reply, definition, eventually, step, tool};
use serde_json::json;
use std::path::Path;

async fn start_ten(api: &Api, group: &str) {
    for n in 0..10 {
        api.start("slow", &format!("{group}-{n}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_before_and_this_one_share_a_database_and_take_over_from_each_other() {
    let mut old = Backstop::start_program(&tool::previous(), Engine::Postgres, &[]).await;
    let bank = Bank::start("bank").await;
    let api = old.api();
    api.enlist_as(&bank, json!({ "deduplicatesByKey": true })).await;
    let steps = ["one", "two"].map(|name| step(name, "bank").with("/action/timeout", "120s"));
    let [one, two] = steps;
    api.define(definition("slow", [one, two.after(&["one"])])).await;
    let gate = Gate::closed();
    let held = gate.clone();
    bank.answers(move |seen| match seen.step().as_str() {
        "two" => Reply::Done.after(&held),
        _ => Reply::Done,
    });
    let in_step_two = |group: &'static str| {
        let bank = &bank;
        async move {
            eventually(&format!("{group} to be in step two"), || async {
                let there =
                    bank.seen().iter().filter(|s| s.saga().starts_with(group) && s.step() == "two").count();
                if there >= 10 { Ok(()) } else { Err(format!("{there} of them")) }
            })
            .await;
        }
    };
    start_ten(&old.api(), "before").await;
    in_step_two("before").await;

    // Expand: the schema goes first, under the running old one.
    let folder = tempfile::tempdir().unwrap();
    let migrated = backstop(folder.path(), &["migrate", "--store", &old.store_url()]);
    assert!(migrated.status.success(), "{}", tool::said(&migrated));
    start_ten(&old.api(), "between").await;
    in_step_two("between").await;

    // Deploy: the new one beside it, both at work.
    let mut new = old.beside_as(Path::new(BINARY), &[]).await;
    start_ten(&old.api(), "by-old").await;
    start_ten(&new.api(), "by-new").await;
    in_step_two("by-old").await;
    in_step_two("by-new").await;
    assert_eq!(
        new.api().get("before-1").await.unwrap().transcript.len(),
        2,
        "it reads what the old one wrote"
    );
    assert_eq!(old.api().get("by-new-1").await.unwrap().transcript.len(), 2, "and the other way round");

    // The new one dies: the old one takes its sagas over. Then the old one dies for good.
    new.kill();
    eventually("the old one to take over", || async {
        let saga = old.api().get("by-new-9").await.map_err(|status| status.to_string())?;
        if saga.epoch >= 2 { Ok(()) } else { Err(shown(&saga)) }
    })
    .await;
    new.start_again().await;
    old.kill();
    gate.open();
    let api = new.api();
    for group in ["before", "between", "by-old", "by-new"] {
        for n in 0..10 {
            let saga = api.rest(&format!("{group}-{n}")).await;
            assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
        }
    }
    let keys: std::collections::BTreeSet<_> = bank.seen().iter().map(|seen| seen.key()).collect();
    assert_eq!(keys.len(), 80, "one key for each branch, whoever called it");
    let server = format!("http://{}", new.address());
    let doctor = backstop(folder.path(), &["--server", &server, "doctor", "--full"]);
    assert!(doctor.status.success(), "{}", tool::said(&doctor));
}
