//! Many calls at once.

use crate::common::{
    Books, World, action, assert_refused_without_effect, compensation, on_both_engines, query, seen,
};
use backstop_participant::{Context, Entered, Fingerprint, Phase};
use std::sync::Arc;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tonic::{Code, Status};

on_both_engines!(
    of_many_with_one_key_at_once_one_works_and_all_get_its_answer,
    of_many_with_one_key_at_once_all_get_one_refusal,
    an_action_and_its_compensation_at_once_leave_the_books_even,
    an_action_and_the_question_for_it_at_once_agree,
    an_action_that_passes_its_fence_and_its_compensation_at_once_leave_the_books_even,
);

const CALLERS: usize = 24;
const ROUNDS: usize = 25;

/// Lets all calls go at the same moment.
async fn at_once<DB: Books>(world: &World<DB>, calls: Vec<(Context, i64)>) -> Vec<Result<String, Status>> {
    let gate = Arc::new(Barrier::new(calls.len()));
    let mut tasks = JoinSet::new();
    for (n, (context, amount)) in calls.into_iter().enumerate() {
        let (world, gate) = (world.clone(), gate.clone());
        tasks.spawn(async move {
            gate.wait().await;
            (n, world.take(&context, amount).await)
        });
    }
    let mut answers = tasks.join_all().await;
    answers.sort_by_key(|(n, _)| *n);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

async fn of_many_with_one_key_at_once_one_works_and_all_get_its_answer<DB: Books>(world: World<DB>) {
    for answer in at_once(&world, vec![(action("s"), 7); CALLERS]).await {
        assert_eq!(answer.unwrap(), "s/debit/action");
    }
    assert_eq!(world.entries().await, [("s/debit/action".to_owned(), 7)]);
    for answer in at_once(&world, vec![(compensation("s"), 7); CALLERS]).await {
        assert_eq!(answer.unwrap(), "s/debit/compensation");
    }
    assert_eq!(world.entries().await.len(), 2);
    assert_eq!(world.sum().await, 0);
}

async fn of_many_with_one_key_at_once_all_get_one_refusal<DB: Books>(world: World<DB>) {
    let answers = at_once(&world, vec![(action("s"), -7); CALLERS]).await;
    let first = seen(answers[0].as_ref().unwrap_err());
    assert!(answers.iter().all(|answer| seen(answer.as_ref().unwrap_err()) == first));
    assert_eq!(world.entries().await, []);
}

async fn an_action_and_its_compensation_at_once_leave_the_books_even<DB: Books>(world: World<DB>) {
    for round in 0..ROUNDS {
        let saga = format!("s{round}");
        let answers = at_once(
            &world,
            vec![(action(&saga), 7), (compensation(&saga), 7), (action(&saga), 7), (compensation(&saga), 7)],
        )
        .await;
        assert_eq!(answers[1].as_ref().unwrap(), answers[3].as_ref().unwrap());
        let both = match &answers[0] {
            Ok(_) => answers[1].as_ref().unwrap() == &format!("{saga}/debit/compensation"),
            Err(status) => {
                assert_refused_without_effect(status, "COMPENSATED");
                true
            }
        };
        assert!(both, "{answers:?}");
        assert_eq!(world.sum().await, 0, "{answers:?}");
        assert!(world.entries().await.len() % 2 == 0);
    }
}

async fn an_action_and_the_question_for_it_at_once_agree<DB: Books>(world: World<DB>) {
    for round in 0..ROUNDS {
        let saga = format!("s{round}");
        let before = world.sum().await;
        let (asking, acting) = (world.clone(), world.clone());
        let (asked, acted) = (query(&saga), action(&saga));
        let ask = tokio::spawn(async move { asking.barrier.query::<String>(&asked).await });
        let act = tokio::spawn(async move { acting.take(&acted, 7).await });
        let (asked, acted) = (ask.await.unwrap(), act.await.unwrap());
        match asked {
            Ok(reply) => assert_eq!(reply.into_inner(), acted.unwrap()),
            Err(status) => {
                assert_eq!(status.code(), Code::NotFound);
                assert_refused_without_effect(&acted.unwrap_err(), "FENCED");
                assert_eq!(world.sum().await, before);
            }
        }
    }
}

async fn an_action_that_passes_its_fence_and_its_compensation_at_once_leave_the_books_even<DB: Books>(
    world: World<DB>,
) {
    for round in 0..ROUNDS {
        let saga = format!("s{round}");
        world.barrier.query::<String>(&query(&saga)).await.unwrap_err();
        let resent = Context { attempt: 2, clock: 8, ..action(&saga) };
        let answers = at_once(&world, vec![(resent.clone(), 7), (compensation(&saga), 7), (resent, 7)]).await;
        assert!(answers[1].is_ok());
        assert_eq!(world.sum().await, 0, "{answers:?}");
    }
}

/// How many sessions wait for another's lock.
const WAITING: &str = "SELECT COUNT(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'";

/// Only Postgres tells that somebody waits; in SQLite there is one writer at a time.
#[tokio::test(flavor = "multi_thread")]
async fn duplicates_questions_and_compensations_wait_for_an_action_under_way() {
    for ends_well in [true, false] {
        let world = World::postgres().await;
        let print = Fingerprint::of("action", &7_i64);
        let Entered::First(mut call) = world.barrier.enter::<String>(&action("s"), print).await.unwrap()
        else {
            panic!("a new call");
        };
        sqlx::Postgres::book(call.db(), "work", 7).await.unwrap();
        let wait_for = |context: Context| {
            let world = world.clone();
            tokio::spawn(async move {
                if context.phase == Phase::Query {
                    world.barrier.query::<String>(&context).await.map(tonic::Response::into_inner)
                } else {
                    world.take(&context, 7).await
                }
            })
        };
        // One after the other, so that they wait in this order.
        let mut others = Vec::new();
        for context in [query("s"), action("s"), compensation("s")] {
            others.push(wait_for(context));
            let waiting = i64::try_from(others.len()).unwrap();
            while sqlx::Postgres::number(&world.pool, WAITING).await < waiting {
                assert!(others.iter().all(|other| !other.is_finished()), "it does not wait");
                tokio::task::yield_now().await;
            }
        }
        if ends_well {
            call.finish(Ok("done".to_owned())).await.unwrap();
        } else {
            drop(call);
        }
        let mut answers = Vec::new();
        for other in others {
            answers.push(other.await.unwrap());
        }
        let undone = answers[2].as_ref().unwrap();
        let sum = world.sum().await;
        if ends_well {
            assert_eq!((undone.as_str(), sum), ("s/debit/compensation", 0));
        } else {
            // Whichever of the three comes to the row first; the books are even all the same.
            assert_eq!(sum, 0, "{answers:?}");
        }
    }
}
