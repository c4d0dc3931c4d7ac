//! How others lost money, told of Postgres: failures of other orchestrators, by their rows in
//! `docs/peer-failures.md`. Most rows about stores are stories of the contract.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use backstop_engine::store_contract::{Bench, STORIES};
use backstop_sql::testing::{Direction, Postgres, Proxy};
use backstop_sql::{PostgresSettings, PostgresStore, postgres_migrate};
use std::sync::Arc;

/// Stories that call every method of a store between them.
const TOLD: [&str; 12] = [
    "crossing_batches_of_two_writers_write_each_saga_once",
    "every_kind_of_event_comes_back_as_it_was",
    "a_head_comes_back_as_it_was_at_every_turn",
    "journals_come_in_the_order_asked_for",
    "each_filter_narrows_and_all_are_joined",
    "only_the_newest_revision_is_compared",
    "participants_are_replaced_and_paged_by_name",
    "every_registration_changes_the_mark",
    "peer_39_a_lease_is_renewed_while_it_lives_and_never_afterwards",
    "a_coordinator_that_drains_is_marked_and_lives_on",
    "restoring_takes_out_only_what_is_in_quarantine",
    "only_what_ended_long_enough_ago_loses_its_journal",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peer_47_no_statement_notifies_listens_or_takes_an_advisory_lock() {
    let cluster = Postgres::shared().unwrap();
    let proxy = Proxy::start(cluster.address()).await.unwrap();
    proxy.record();
    let mut told = 0;
    for story in STORIES.iter().filter(|story| TOLD.contains(&story.name)) {
        let url = cluster.create_database().unwrap();
        // Migrations are not on the path of any saga, but take no such lock either.
        postgres_migrate(&proxy.url(&url)).await.unwrap();
        let open =
            async || PostgresStore::connect(&proxy.url(&url), PostgresSettings::default()).await.unwrap();
        let bench = Bench { store: Arc::new(open().await), second: Arc::new(open().await), exclusive: false };
        (story.run)(&bench).await;
        told += 1;
    }
    assert_eq!(told, TOLD.len(), "a story has another name now");
    // Statements go up as text.
    let sent = String::from_utf8_lossy(&proxy.recorded(Direction::Up)).to_lowercase();
    for seen in [
        "insert into journal",
        "insert into saga (",
        "update saga set",
        "insert into coordinator",
        "update coordinator",
        "delete from coordinator",
        "insert into definition",
        "insert into participant",
        "delete from journal",
        "from saga",
    ] {
        assert!(sent.contains(seen), "\"{seen}\" never went over the wire: the recording misses something");
    }
    for forbidden in ["notify", "listen ", "listen\0", "advisory"] {
        let place = sent
            .find(forbidden)
            .map(|at| sent[at.saturating_sub(60)..].chars().take(160).collect::<String>());
        assert_eq!(place, None, "\"{forbidden}\" went over the wire");
    }
}
