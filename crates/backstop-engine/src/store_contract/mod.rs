//! What every store has to keep, as stories. Memory, SQLite and Postgres run the same list.
//!
//! A story that holds for one store and not for another is a fault of a store, or of the story; it is
//! never left out for one of them.
//!
//! # Not here
//! What only SQL can do wrong (an unreadable row, a schema of another version): `backstop-sql`'s tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod appending;
mod leasing;
mod listing;
mod peer_failures;
mod reading;
mod registering;
mod retiring;
pub mod sample;
mod setting_aside;
mod unsettled;

use crate::ports::store::Store;
use futures::future::BoxFuture;
use std::sync::Arc;

/// An empty store, for one story.
pub struct Bench {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The same data as another coordinator sees it: a second opening where there can be one (Postgres),
    /// else the same store again.
    pub second: Arc<dyn Store>,
    /// True if only one coordinator can use the store at a time.
    pub exclusive: bool,
}

/// One story.
pub struct Story {
    /// What it tells.
    pub name: &'static str,
    /// Tells it; panics if it does not hold.
    pub run: for<'a> fn(&'a Bench) -> BoxFuture<'a, ()>,
}

/// A story by the path of its function, so that its name is written once.
macro_rules! stories {
    ($($module:ident :: $story:ident),* $(,)?) => {
        &[$(Story { name: stringify!($story), run: |bench| Box::pin($module::$story(bench)) }),*]
    };
}

/// All stories.
pub const STORIES: &[Story] = stories![
    appending::an_append_goes_in_only_as_the_next_seq,
    appending::a_lost_append_leaves_nothing_behind_not_even_its_later_events,
    appending::a_repeated_append_is_recognised_as_its_own_and_is_there_once,
    appending::a_repeated_append_is_recognised_after_the_saga_has_gone_on,
    appending::an_append_that_differs_in_one_event_is_not_taken_for_its_own,
    appending::of_sixteen_writers_at_one_seq_exactly_one_is_written,
    appending::of_sixteen_creators_of_one_saga_exactly_one_is_written,
    appending::crossing_batches_of_two_writers_write_each_saga_once,
    appending::a_batch_with_lost_appends_still_writes_the_others,
    appending::the_same_id_with_another_creation_is_lost,
    appending::a_saga_that_does_not_exist_cannot_be_continued,
    appending::a_batch_that_makes_no_sense_changes_nothing,
    appending::an_empty_batch_is_written_at_once,
    appending::a_batch_of_any_size_goes_in_whole,
    reading::every_kind_of_event_comes_back_as_it_was,
    reading::a_head_comes_back_as_it_was_at_every_turn,
    reading::text_of_any_content_comes_back_as_it_was,
    reading::a_saga_of_256_steps_comes_back_whole,
    reading::a_payload_of_a_mebibyte_comes_back_whole,
    reading::events_resume_after_a_seq,
    reading::journals_come_in_the_order_asked_for,
    reading::what_is_not_there_is_none_and_no_error,
    reading::peer_10_ids_that_are_prefixes_of_each_other_do_not_see_each_other,
    peer_failures::peer_10_any_ids_are_told_apart_in_pages_takeover_quarantine_and_retirement,
    peer_failures::peer_36_a_stale_reader_cannot_write_over_an_end,
    listing::paging_sees_each_saga_once_in_order_with_equal_times,
    listing::each_filter_narrows_and_all_are_joined,
    listing::labels_match_exactly_whatever_they_hold,
    registering::the_same_content_is_the_same_revision,
    registering::only_the_newest_revision_is_compared,
    registering::concurrent_puts_make_one_common_or_different_revisions,
    registering::definitions_are_paged_by_name_each_with_its_newest_revision,
    registering::participants_are_replaced_and_paged_by_name,
    registering::every_registration_changes_the_mark,
    leasing::peer_39_a_lease_is_renewed_while_it_lives_and_never_afterwards,
    leasing::a_coordinator_that_left_is_gone,
    leasing::entering_tells_who_is_there,
    leasing::peer_40_sagas_of_the_living_are_no_orphans_and_those_of_the_dead_are,
    leasing::peer_34_a_parked_saga_is_an_orphan_when_its_time_has_come,
    leasing::what_waits_for_a_person_or_is_over_is_no_orphan,
    leasing::orphans_come_in_bites,
    leasing::peer_35_each_orphan_is_in_exactly_one_share_of_any_number_and_names_its_last_owner,
    leasing::a_coordinator_that_drains_is_marked_and_lives_on,
    setting_aside::what_is_set_aside_is_nobodys_and_keeps_its_journal,
    setting_aside::only_the_owner_that_was_seen_is_deprived,
    setting_aside::an_append_neither_writes_quarantine_nor_passes_it,
    setting_aside::restoring_takes_out_only_what_is_in_quarantine,
    setting_aside::tables_in_order_have_no_misfits,
    setting_aside::peer_34_each_kind_of_misfit_is_found,
    setting_aside::an_owner_whose_lease_is_just_over_is_not_gone_yet,
    unsettled::what_waits_and_what_rolls_back_is_counted_by_definition,
    unsettled::what_is_set_aside_waits_for_a_person_too,
    unsettled::only_the_oldest_are_looked_at,
    retiring::a_report_that_comes_after_its_journal_was_retired_is_lost,
    retiring::only_what_ended_long_enough_ago_loses_its_journal,
    retiring::peer_41_an_id_is_taken_until_its_own_time_has_come,
    retiring::a_head_row_never_goes_before_its_journal,
    retiring::retirement_comes_in_bites,
    retiring::peer_17_the_unfinished_and_the_set_aside_stay_however_old,
    retiring::two_retirers_at_once_take_each_journal_once,
];

/// Tells every story, each on a fresh bench.
///
/// # Panics
/// After the last story, with the names of those that did not hold.
pub async fn run<F, B>(mut fresh: F)
where
    F: FnMut() -> B,
    B: Future<Output = Bench>,
{
    let mut broken = Vec::new();
    for story in STORIES {
        let bench = fresh().await;
        // In a task of its own, so that one story's panic does not silence the others.
        let told = tokio::spawn(async move { (story.run)(&bench).await }).await;
        if told.is_err() {
            broken.push(story.name);
        }
    }
    assert!(broken.is_empty(), "{} of {} stories do not hold: {broken:#?}", broken.len(), STORIES.len());
}
