//! A call that is dropped in the middle, as tonic drops it when its caller is gone.

use crate::common::{Books, World, action, compensation, on_both_engines};
use backstop_participant::{Context, Entered, Fingerprint, Phase};
use std::future::Future;
use std::pin::pin;
use std::task::Poll;

on_both_engines!(
    dropped_between_any_two_of_its_parts_a_call_leaves_nothing_behind,
    dropped_at_any_await_a_call_leaves_nothing_behind_or_is_whole,
);

/// More awaits than one call suspends at.
const AWAITS_MAX: usize = 24;

/// Polls a call until it has been suspended so many times, and drops it there, unless it ends before.
async fn dropped_after<F: Future>(suspensions: usize, call: F) {
    let mut call = pin!(call);
    let mut left = suspensions;
    std::future::poll_fn(|cx| match call.as_mut().poll(cx) {
        Poll::Ready(_) => Poll::Ready(()),
        Poll::Pending if left == 0 => Poll::Ready(()),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await;
}

async fn dropped_between_any_two_of_its_parts_a_call_leaves_nothing_behind<DB: Books>(world: World<DB>) {
    for (n, call) in CALLS.into_iter().enumerate() {
        for with_work in [false, true] {
            let saga = format!("s{n}{with_work}");
            let before = prepared(&world, call, &saga).await;
            let print = Fingerprint::of(call(&saga).phase.as_str(), &7_i64);
            let Entered::First(mut first) = world.barrier.enter::<String>(&call(&saga), print).await.unwrap()
            else {
                panic!("a new call");
            };
            if with_work {
                DB::book(first.db(), "half", 1).await.unwrap();
            }
            drop(first);
            assert_eq!(world.entries().await.len(), before);
            whole(&world, call, &saga, before).await;
        }
    }
}

/// Where the machine lets a call suspend is by chance; wherever it is, the call is dropped there.
async fn dropped_at_any_await_a_call_leaves_nothing_behind_or_is_whole<DB: Books>(world: World<DB>) {
    for call in CALLS {
        for suspensions in 0..AWAITS_MAX {
            let saga = format!("{}-{suspensions}", call("").phase.as_str());
            let before = prepared(&world, call, &saga).await;
            dropped_after(suspensions, world.take(&call(&saga), 7)).await;
            whole(&world, call, &saga, before).await;
        }
    }
}

const CALLS: [fn(&str) -> Context; 2] = [action, compensation];

/// Does what has to be there before the call, and answers how many entries there are.
async fn prepared<DB: Books>(world: &World<DB>, call: fn(&str) -> Context, saga: &str) -> usize {
    if call(saga).phase == Phase::Compensation {
        world.take(&action(saga), 7).await.unwrap();
    }
    world.entries().await.len()
}

/// Asserts that the next attempt finds the call done, or does it, once.
async fn whole<DB: Books>(world: &World<DB>, call: fn(&str) -> Context, saga: &str, before: usize) {
    let reply = world.take(&call(saga), 7).await.unwrap();
    assert_eq!(reply, call(saga).idempotency_key);
    assert_eq!(world.entries().await.len(), before + 1, "{saga}");
}
