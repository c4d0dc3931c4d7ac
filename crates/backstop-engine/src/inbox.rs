//! What waits for one saga's attention.
//!
//! Each live saga has one, nearly always empty. A channel of tokio's holds 1.06 KB for it from the first moment on: room for 32
//! commands, and each end on lines of the cache of its own. This holds nothing until something comes.
//!
//! # Invariants
//! * What is put in is taken out, in order, unless the reader goes away first: then it is dropped, and who waits for an
//!   answer to it learns so.
//! * Once closed it takes nothing more, and what is in it can still be taken.
//! * No more wait in it than it has room for; who finds none waits outside.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore};

struct Inbox<T> {
    waiting: Mutex<VecDeque<T>>,
    arrived: Notify,
    /// Closed with the inbox, while nobody looks into it.
    room: Semaphore,
}

/// Puts things in.
pub(crate) struct Sender<T>(Arc<Inbox<T>>);

/// Takes them out. Dropping it closes the inbox and drops what is in it.
pub(crate) struct Reader<T>(Arc<Inbox<T>>);

/// An inbox with room for so many.
pub(crate) fn inbox<T>(room: usize) -> (Sender<T>, Reader<T>) {
    let (waiting, arrived) = (Mutex::new(VecDeque::new()), Notify::new());
    let inbox = Arc::new(Inbox { waiting, arrived, room: Semaphore::new(room) });
    (Sender(Arc::clone(&inbox)), Reader(inbox))
}

impl<T> Inbox<T> {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Sender<T> {
    /// Puts something in, waiting for room if there is none.
    ///
    /// # Errors
    /// It is closed: here it is back.
    pub(crate) async fn put(&self, item: T) -> Result<(), T> {
        let Ok(room) = self.0.room.acquire().await else { return Err(item) };
        let mut waiting = self.0.waiting();
        if self.0.room.is_closed() {
            return Err(item);
        }
        // Given back when the item is taken.
        room.forget();
        waiting.push_back(item);
        drop(waiting);
        self.0.arrived.notify_one();
        Ok(())
    }
}

impl<T> Reader<T> {
    /// What came first, if anything is there.
    pub(crate) fn take(&self) -> Option<T> {
        let item = self.0.waiting().pop_front()?;
        self.0.room.add_permits(1);
        Some(item)
    }

    /// What came first; waits for something to come. Nothing is lost if the waiting is given up.
    pub(crate) async fn next(&self) -> T {
        loop {
            if let Some(item) = self.take() {
                return item;
            }
            self.0.arrived.notified().await;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.waiting().is_empty()
    }

    /// From here on nothing more comes in.
    pub(crate) fn close(&self) {
        let _nobody_is_putting = self.0.waiting();
        self.0.room.close();
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.close();
        // Outside of the lock: what is dropped may wake others.
        let left = std::mem::take(&mut *self.0.waiting());
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn what_is_put_in_comes_out_in_order_and_who_finds_no_room_waits() {
        let (sender, reader) = inbox(2);
        assert!(reader.next().now_or_never().is_none(), "given up before anything came");
        assert_eq!((sender.put(1).await, sender.put(2).await), (Ok(()), Ok(())));
        let mut third = Box::pin(sender.put(3));
        assert!(third.as_mut().now_or_never().is_none(), "two is all there is room for");
        assert_eq!(reader.next().await, 1);
        assert_eq!(third.await, Ok(()));
        assert_eq!((reader.take(), reader.next().await, reader.take()), (Some(2), 3, None));
        assert!(reader.is_empty());
    }

    #[tokio::test]
    async fn closed_it_hands_back_what_comes_and_keeps_what_is_there() {
        let (sender, reader) = inbox(1);
        assert_eq!(sender.put(1).await, Ok(()));
        let mut late = Box::pin(sender.put(2));
        assert!(late.as_mut().now_or_never().is_none());
        reader.close();
        assert_eq!((late.await, sender.put(3).await), (Err(2), Err(3)));
        assert_eq!((reader.take(), reader.take()), (Some(1), None));
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_leaves_nobody_waiting_for_an_answer() {
        let (sender, reader) = inbox(1);
        let (reply, answer) = oneshot::channel::<()>();
        assert!(sender.put(reply).await.is_ok());
        drop(reader);
        assert!(answer.await.is_err());
        assert!(sender.put(oneshot::channel().0).await.is_err());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_reader_that_looks_and_gives_up_again_and_again_misses_nothing() {
        let (sender, reader) = inbox(4);
        let sending = tokio::spawn(async move {
            for n in 0..20_000 {
                sender.put(n).await.unwrap();
            }
        });
        for n in 0..20_000 {
            let got = loop {
                tokio::select! {
                    biased;
                    got = reader.next() => break got,
                    () = tokio::task::yield_now() => {}
                }
            };
            assert_eq!(got, n);
        }
        sending.await.unwrap();
    }
}
