//! The store in memory keeps the contract, so that tests on it mean something.

use backstop_engine::memory_store::MemoryStore;
use backstop_engine::store_contract::{Bench, run};
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_in_memory_keeps_the_contract() {
    run(async || {
        let store = Arc::new(MemoryStore::new());
        Bench { store: store.clone(), second: store, exclusive: true }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_in_memory_that_several_share_keeps_it_too() {
    run(async || {
        let store = Arc::new(MemoryStore::new().shared());
        Bench { store: store.clone(), second: store, exclusive: false }
    })
    .await;
}
