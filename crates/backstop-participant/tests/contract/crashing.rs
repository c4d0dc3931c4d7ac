//! A call that is dropped in the middle, as tonic drops it when its caller is gone.

use crate::common::{Books, World, action, compensation, on_both_engines};
use backstop_participant::Context;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;

on_both_engines!(dropped_at_any_await_a_call_leaves_nothing_behind_or_is_whole);

/// Most awaits that one call suspends at.
const AWAITS_MAX: usize = 200;

/// Polls a call until it has been suspended so many times, and drops it there; true if it ended before.
async fn dropped_after<F: Future>(suspensions: usize, call: F) -> bool {
    let mut call = pin!(call);
    let mut left = suspensions;
    std::future::poll_fn(|cx| match call.as_mut().poll(cx) {
        Poll::Ready(_) => Poll::Ready(true),
        Poll::Pending if left == 0 => Poll::Ready(false),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

async fn dropped_at_any_await_a_call_leaves_nothing_behind_or_is_whole<DB: Books>(world: World<DB>) {
    let calls: [fn(&str) -> Context; 2] = [action, compensation];
    for call in calls {
        let mut reached = 0;
        for suspensions in 0..AWAITS_MAX {
            let saga = format!("{}-{suspensions}", call("x").phase.as_str());
            let is_compensation = call("x").phase != action("x").phase;
            if is_compensation {
                world.take(&action(&saga), 7).await.unwrap();
            }
            let before = world.entries().await.len();
            let ended = dropped_after(suspensions, world.take(&call(&saga), 7)).await;
            let reply = world.take(&call(&saga), 7).await.unwrap();
            assert_eq!(reply, format!("{saga}/debit/{}", call("x").phase.as_str()));
            assert_eq!(world.entries().await.len(), before + 1, "dropped after {suspensions}");
            if ended {
                break;
            }
            reached += 1;
        }
        assert!((4..AWAITS_MAX).contains(&reached), "{reached} places to crash at");
    }
}
