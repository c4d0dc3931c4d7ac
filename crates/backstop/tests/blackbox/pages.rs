//! The documents, followed from top to bottom: each command of a page is run against a real coordinator and the
//! example's real bank, and what the page shows is what is printed.
//!
//! How a page is read: `common/page.rs`.

use crate::common::page::{self, Deed, Line, blocks, compare, deeds};
use crate::common::stage::Stage;
use crate::common::{eventually, tool};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use std::collections::BTreeSet;
use std::path::Path;

/// Follows a page on a stage of its own; how many commands it had.
async fn follow(path: &str) -> usize {
    let mut stage = Stage::bare().await;
    let text = page::text(path);
    let mut commands = 0;
    for deed in deeds(&text) {
        match deed {
            Deed::Prepare { words, line } if words[..2] == ["keep", "as"] => {
                let block = blocks(&text).into_iter().find(|block| block.line > line).expect("a block");
                std::fs::write(stage.folder.path().join(&words[2]), block.text).unwrap();
            }
            // About a definition, for the test of definitions.
            Deed::Prepare { words, .. } if words == ["simulate", "only"] => {}
            Deed::Prepare { line, words } => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                prepare(&mut stage, &words).await.unwrap_or_else(|()| panic!("{path}:{line}: {words:?}?"));
            }
            Deed::Run(line) => {
                run(&stage, path, &line);
                commands += 1;
            }
        }
    }
    commands
}

fn run(stage: &Stage, path: &str, line: &Line) {
    let output = stage.shell(&line.text);
    let said = stage.as_in_page(&tool::said(&output));
    let place = format!("{path}:{}: {}", line.line, line.text);
    match line.exit {
        Some(code) => assert_eq!(output.status.code(), Some(code), "{place}\n{said}"),
        None => assert!(!output.status.success(), "{place}\nthe page says that it fails\n{said}"),
    }
    if let Some(shown) = &line.prints
        && let Err(missing) = compare(shown, &said)
    {
        panic!("{place}\nnot as in the page from this line on: {missing}\nprinted:\n{said}");
    }
}

/// What a page's hidden words ask for.
async fn prepare(stage: &mut Stage, words: &[&str]) -> Result<(), ()> {
    match words {
        ["open", "the", "bank"] => stage.open_the_bank(),
        ["leave", first, "and", second, "stuck"] => {
            // By the very lines of the other page: its definition, and a partner that is away.
            stage.partner(Some("127.0.0.1:7432"));
            let is_payout = |line: &Line| line.text.contains("\"payout\"") && line.exit == Some(0);
            for deed in deeds(&page::text("docs/grpcurl.md")) {
                if let Deed::Run(line) = deed
                    && line.text.contains("RegisterDefinition")
                    && is_payout(&line)
                {
                    run(stage, "docs/grpcurl.md", &Line { prints: None, ..line });
                }
            }
            stage.partner(None);
            let input =
                r#"{"from": "DE02120300000000202051", "to": "NL91ABNA0417164300", "amount_minor": "990000"}"#;
            for saga in [first, second] {
                let line = format!("backstop saga start payout --id {saga} --wait 60s --input '{input}'");
                assert_eq!(stage.shell(&line).status.code(), Some(4), "{saga} is to need a person");
            }
        }
        ["bring", "the", "partner", "back"] => stage.partner(Some("127.0.0.1:7432")),
        ["break", "the", "journal", "of", saga] => {
            stage.backstop.kill();
            let text = format!(
                "CREATE TABLE aside AS SELECT * FROM saga_event WHERE saga_id = '{saga}';
                 UPDATE saga_event SET payload = x'ff' WHERE saga_id = '{saga}';
                 UPDATE saga SET owner = NULL, wake_at = 0 WHERE id = '{saga}'"
            );
            sql(stage, &text).await;
            stage.backstop.start_again().await;
            eventually("the quarantine", || async {
                let saga = stage.backstop.api().get(saga).await.map_err(|status| status.to_string())?;
                if saga.quarantine.is_empty() { Err(saga.transcript.join("\n")) } else { Ok(()) }
            })
            .await;
        }
        ["mend", "the", "journal", "of", saga] => {
            let text = format!(
                "UPDATE saga_event SET payload = (SELECT payload FROM aside WHERE aside.seq = saga_event.seq)
                 WHERE saga_id = '{saga}'"
            );
            sql(stage, &text).await;
        }
        _ => return Err(()),
    }
    Ok(())
}

async fn sql(stage: &Stage, text: &str) {
    let mut database = SqliteConnection::connect(&stage.backstop.store_url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_the_grpcurl_page_runs_and_prints_what_the_page_shows() {
    let commands = follow("docs/grpcurl.md").await;
    assert!(commands >= 50, "{commands} commands");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_the_operations_page_runs_and_prints_what_the_page_shows() {
    let commands = follow("docs/operations.md").await;
    assert!(commands >= 5, "{commands} commands");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_the_guide_runs_and_prints_what_the_guide_shows() {
    let pages = guide();
    assert!(pages.len() >= 5, "{pages:?}");
    let mut commands = 0;
    for path in pages {
        commands += follow(&path).await;
    }
    assert!(commands >= 14, "{commands} commands");
}

/// The pages of the guide.
fn guide() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide");
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
    files.map(|name| format!("docs/guide/{}", name.display())).collect()
}

/// Every definition in the guide is one: those of the example's bank are checked down to the types of their fields,
/// the others are simulated.
#[tokio::test(flavor = "multi_thread")]
async fn every_definition_in_the_guide_can_be_registered_or_simulated() {
    let stage = Stage::bare().await;
    stage.open_the_bank();
    let mut checked = 0;
    for path in guide() {
        let text = page::text(&path);
        for block in blocks(&text).into_iter().filter(|block| block.kind == "yaml") {
            if !block.text.starts_with("name:") {
                continue;
            }
            std::fs::write(stage.folder.path().join("definition.yaml"), &block.text).unwrap();
            let before = text.lines().take(block.line - 2).collect::<Vec<_>>();
            let words = before.iter().rev().take_while(|line| line.is_empty() || line.starts_with("<!--"));
            let verb = if words.into_iter().any(|line| line.contains("simulate only")) {
                "backstop definition simulate --file definition.yaml"
            } else {
                "backstop definition register --validate-only definition.yaml"
            };
            let output = stage.shell(verb);
            assert!(output.status.success(), "{path}:{}: {verb}\n{}", block.line, tool::said(&output));
            checked += 1;
        }
    }
    assert!(checked >= 5, "{checked} definitions");
}

#[test]
fn the_grpcurl_page_has_a_line_for_each_method_of_the_api() {
    let lines: Vec<String> = deeds(&page::text("docs/grpcurl.md"))
        .into_iter()
        .filter_map(|deed| match deed {
            Deed::Run(line) => Some(line.text),
            Deed::Prepare { .. } => None,
        })
        .collect();
    let pool = prost_reflect::DescriptorPool::decode(backstop_proto::DESCRIPTORS).unwrap();
    let mut methods = BTreeSet::new();
    for service in pool.services().filter(|service| service.full_name().starts_with("backstop.v1.")) {
        methods.extend(service.methods().map(|method| format!("{}/{}", service.full_name(), method.name())));
    }
    assert!(methods.len() > 15, "{methods:?}");
    let missing: Vec<_> =
        methods.iter().filter(|method| !lines.iter().any(|line| line.contains(method.as_str()))).collect();
    assert!(missing.is_empty(), "docs/grpcurl.md has no line for {missing:?}");
}
