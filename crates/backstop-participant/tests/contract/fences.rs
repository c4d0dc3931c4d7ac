//! Questions, and what their answers promise.

use crate::common::{
    Books, World, action, assert_refused_without_effect, compensation, on_both_engines, query,
};
use backstop_participant::{Context, Fingerprint};
use tonic::Code;

on_both_engines!(
    a_query_answers_from_the_row,
    an_action_that_was_on_its_way_when_it_was_asked_about_is_refused_and_one_sent_after_runs,
    a_fence_only_moves_forward,
    a_compensation_bars_a_fenced_action_for_good,
    an_unfenced_query_promises_nothing,
    a_query_is_no_work_and_work_is_no_query,
);

async fn a_query_answers_from_the_row<DB: Books>(world: World<DB>) {
    world.take(&action("done"), 7).await.unwrap();
    world.take(&action("refused"), -7).await.unwrap_err();
    world.take(&action("undone"), 7).await.unwrap();
    world.take(&compensation("undone"), 7).await.unwrap();
    let ask = |saga: &'static str| {
        let world = world.clone();
        async move { world.barrier.query::<String>(&query(saga)).await.map(tonic::Response::into_inner) }
    };
    assert_eq!(ask("done").await.unwrap(), "done/debit/action");
    for nothing in ["refused", "undone", "unheard"] {
        assert_eq!(ask(nothing).await.unwrap_err().code(), Code::NotFound, "{nothing}");
    }
}

async fn an_action_that_was_on_its_way_when_it_was_asked_about_is_refused_and_one_sent_after_runs<
    DB: Books,
>(
    world: World<DB>,
) {
    assert_eq!(world.barrier.query::<String>(&query("s")).await.unwrap_err().code(), Code::NotFound);
    for clock in [5, 7] {
        let late = world.take(&Context { clock, ..action("s") }, 7).await.unwrap_err();
        assert_refused_without_effect(&late, "FENCED");
    }
    let resent = Context { attempt: 2, clock: 8, ..action("s") };
    world.take(&resent, 7).await.unwrap();
    world.take(&action("s"), 7).await.unwrap();
    assert_eq!(world.barrier.query::<String>(&query("s")).await.unwrap().into_inner(), "s/debit/action");
    assert_eq!(world.sum().await, 7);
}

async fn a_fence_only_moves_forward<DB: Books>(world: World<DB>) {
    for clock in [7, 20, 3] {
        world.barrier.query::<String>(&Context { clock, ..query("s") }).await.unwrap_err();
    }
    assert!(world.take(&Context { clock: 20, ..action("s") }, 7).await.is_err());
    assert!(world.take(&Context { clock: 21, ..action("s") }, 7).await.is_ok());
}

async fn a_compensation_bars_a_fenced_action_for_good<DB: Books>(world: World<DB>) {
    world.barrier.query::<String>(&query("s")).await.unwrap_err();
    assert_eq!(world.take(&compensation("s"), 7).await.unwrap(), "");
    let late = Context { clock: 99, epoch: 99, ..action("s") };
    assert_refused_without_effect(&world.take(&late, 7).await.unwrap_err(), "COMPENSATED");
    assert_eq!(world.barrier.query::<String>(&query("s")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(world.entries().await, []);
}

async fn an_unfenced_query_promises_nothing<DB: Books>(world: World<DB>) {
    assert_eq!(world.barrier.query_unfenced::<String>(&query("s")).await.unwrap_err().code(), Code::NotFound);
    world.take(&action("s"), 7).await.unwrap();
    assert_eq!(
        world.barrier.query_unfenced::<String>(&query("s")).await.unwrap().into_inner(),
        "s/debit/action"
    );
}

async fn a_query_is_no_work_and_work_is_no_query<DB: Books>(world: World<DB>) {
    let print = Fingerprint::of("m", &1_i64);
    let status = world.barrier.enter::<String>(&query("s"), print).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(world.barrier.query::<String>(&action("s")).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(DB::number(&world.pool, "SELECT COUNT(*) FROM backstop_barrier").await, 0);
}
