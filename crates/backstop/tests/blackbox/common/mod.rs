//! What every black-box test needs: the binary under test, participants that can be scripted, a client.

pub(crate) mod api;
pub(crate) mod bank;
pub(crate) mod collector;
pub(crate) mod definition;
pub(crate) mod page;
pub(crate) mod script;
pub(crate) mod server;
pub(crate) mod stage;
pub(crate) mod tool;

pub(crate) use api::Api;
pub(crate) use bank::Bank;
pub(crate) use definition::{definition, step};
pub(crate) use script::{Gate, Reply};
pub(crate) use server::{Backstop, Engine};

use std::time::Duration;

/// Longest wait for anything. A test that reaches it has failed; none passes sooner or later by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks again and again until there is something to see; panics with `what` and the last sight.
pub(crate) async fn eventually<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(seen) => return seen,
            Err(instead) if tokio::time::Instant::now() >= deadline => {
                panic!("waited {PATIENCE:?} for: {what}\ninstead: {instead}")
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// A plain HTTP GET; the body.
pub(crate) async fn get(address: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("the metrics listener");
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
}
