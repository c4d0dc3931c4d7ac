#![allow(clippy::unwrap_used)]
use super::*;

const SERVICES: &[&str] = &["ledger_a", "ledger_b", "risk", "audit"];

fn with_line(line: &str) -> Result<Vec<Transfer>, String> {
    let text = format!("{}\n{line}\n", TRANSFER_COLUMNS.join(","));
    transfers("t.csv", &text, SERVICES).map_err(|error| error.to_string())
}

#[test]
fn the_files_that_come_with_the_demo_are_sound_and_tell_every_kind_of_ending() {
    let transfers = transfers("transfers.csv", TRANSFERS_CSV, SERVICES).unwrap();
    let accounts = accounts("accounts.csv", ACCOUNTS_CSV, &["ledger_a", "ledger_b"]).unwrap();
    registrations("participants.json", PARTICIPANTS_JSON, SERVICES).unwrap();
    for transfer in &transfers {
        let kept_by = |account: &str| accounts.iter().find(|a| a.account == account).map(|a| &*a.ledger);
        assert_eq!(kept_by(&transfer.from), Some("ledger_a"), "{}", transfer.id);
        assert_eq!(kept_by(&transfer.to), Some("ledger_b"), "{}", transfer.id);
    }
    let tiers: BTreeSet<i32> = transfers
        .iter()
        .filter_map(|transfer| match &transfer.expect {
            Expectation::RolledBack { tier, .. } => Some(*tier as i32),
            Expectation::Succeeded => None,
        })
        .collect();
    assert_eq!(tiers.len(), 3, "one of each tier");
    assert!(transfers.iter().any(|transfer| transfer.expect == Expectation::Succeeded));
}

#[test]
fn a_line_is_read_as_it_stands() {
    let read = with_line("p-1,A,B,5,EUR,rent,,ledger_b,ROLLED_BACK,credit,FIN-50302,L2").unwrap();
    assert_eq!(read[0].down.as_deref(), Some("ledger_b"));
    let expect =
        Expectation::RolledBack { step: "credit".into(), fin_code: "FIN-50302".into(), tier: v1::Tier::L2 };
    assert_eq!(read[0].expect, expect);
}

#[test]
fn a_cell_that_cannot_be_names_line_and_column() {
    for (line, column) in [
        ("p 1,A,B,5,EUR,,,,SUCCEEDED,,,", "id"),
        (",A,B,5,EUR,,,,SUCCEEDED,,,", "id"),
        ("p-1,,B,5,EUR,,,,SUCCEEDED,,,", "from"),
        ("p-1,A,B,0,EUR,,,,SUCCEEDED,,,", "amount_minor"),
        ("p-1,A,B,-5,EUR,,,,SUCCEEDED,,,", "amount_minor"),
        ("p-1,A,B,5.00,EUR,,,,SUCCEEDED,,,", "amount_minor"),
        ("p-1,A,B,99999999999999999999,EUR,,,,SUCCEEDED,,,", "amount_minor"),
        ("p-1,A,B,5,eur,,,,SUCCEEDED,,,", "currency"),
        ("p-1,A,B,5,EUR,,,moon,SUCCEEDED,,,", "down"),
        ("p-1,A,B,5,EUR,,,,MAYBE,,,", "expect_state"),
        ("p-1,A,B,5,EUR,,,,SUCCEEDED,debit,,", "expect_step"),
        ("p-1,A,B,5,EUR,,,,ROLLED_BACK,,FIN-40005,L3", "expect_step"),
        ("p-1,A,B,5,EUR,,,,ROLLED_BACK,debit,40005,L3", "expect_code"),
        ("p-1,A,B,5,EUR,,,,ROLLED_BACK,debit,FIN-40005,L4", "expect_tier"),
    ] {
        let said = with_line(line).unwrap_err();
        assert!(said.starts_with(&format!("t.csv:2: {column} is ")), "{line}: {said}");
    }
}

#[test]
fn a_name_that_stands_twice_is_refused() {
    let line = "p-1,A,B,5,EUR,,,,SUCCEEDED,,,";
    let said = with_line(&format!("{line}\n{line}")).unwrap_err();
    assert_eq!(said, "t.csv:3: \"p-1\" stands on an earlier line already");
    let said = registrations("p.json", "[{\"name\": \"risk\",\n \"color\": 1}]", SERVICES).unwrap_err();
    assert_eq!(said.line, 2);
}
