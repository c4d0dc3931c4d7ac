//! What `--peer` takes, and what it does not.

use super::Way;
use super::counted::Counted;
use super::http::Client;
use super::programs::Programs;
use super::wish::{Manner, Wish};

fn wish(text: &str) -> Result<Wish, String> {
    text.parse().map_err(|error: anyhow::Error| error.to_string())
}

#[test]
fn a_wish_is_read_as_the_help_has_it() {
    assert_eq!(wish("dtmrs"), Ok(Wish::Dtmrs));
    assert_eq!(wish("restate"), Ok(Wish::Restate { partitions: 1, manner: Manner::AsAsked }));
    assert_eq!(wish("restate=4:sequential"), Ok(Wish::Restate { partitions: 4, manner: Manner::Sequential }));
    assert_eq!(wish("restate=:one-step"), Ok(Wish::Restate { partitions: 1, manner: Manner::OneStep }));
    assert_eq!(wish("dtm=grpc://127.0.0.1:36790"), Ok(Wish::DtmAt("http://127.0.0.1:36790".to_owned())));
    assert!(matches!(wish(r#"http=POST http://h/run {"gid":"{id}"}"#), Ok(Wish::Http(_))));
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_can() {
    for (text, said) in [
        ("temporal", "no such peer"),
        ("dtmrs=mysql", "no such peer"),
        ("restate=0", "from 1 to"),
        ("restate=2:fast", ":sequential or :one-step"),
        ("dtm=http://h:1", "grpc://"),
        ("http=POST", "METHOD URL TEMPLATE"),
        ("http=POST https://h {id}", "begins with http://"),
        ("http=POST http://h {}", "{id} stands in neither"),
    ] {
        let refused = wish(text).expect_err(text);
        assert!(refused.contains(said), "{text}: {refused}");
    }
}

#[test]
fn braces_that_are_not_ours_stay() {
    let addresses = [1, 2, 3].map(|port| std::net::SocketAddr::from(([127, 0, 0, 1], port)));
    let filled = super::http::fill(r#"{"id":"{id}","to":["{a}","{c}"],"x":{}}"#, "s-1", &addresses);
    assert_eq!(filled, r#"{"id":"s-1","to":["127.0.0.1:1","127.0.0.1:3"],"x":{}}"#);
}

#[test]
fn a_saga_that_a_peer_has_not_ended_is_found() {
    let counted = Counted::default();
    counted.count(Way::Concurrent);
    counted.count(Way::RolledBack);
    assert!(counted.agrees(1, 1, 2).is_ok());
    for (succeeded, rolled_back, all) in [(0, 1, 1), (1, 0, 1), (1, 1, 3), (2, 1, 3)] {
        assert!(counted.agrees(succeeded, rolled_back, all).is_err(), "{succeeded} {rolled_back} {all}");
    }
}

#[test]
fn a_program_that_is_not_there_is_said_with_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let programs = Programs::find(Some(folder.path())).unwrap();
    let error = programs.file("peer-dtmrs").unwrap_err().to_string();
    assert!(error.contains("peer-dtmrs") && error.contains("cargo xtask peers"), "{error}");
}

/// Answers each connection once with this status and body.
async fn answering(status: &'static str, body: &'static str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut asked = [0; 1024];
            let _ = socket.read(&mut asked).await.unwrap();
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close", body.len());
            socket.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
        }
    });
    format!("http://{address}/run")
}

#[tokio::test]
async fn only_2xx_is_an_end_and_anything_else_says_what_was_answered() {
    let client = Client::new();
    let there = answering("201 Created", "done").await;
    assert_eq!(client.fetch(hyper::Method::POST, &there, "{}".to_owned()).await.unwrap(), "done");
    let broken = answering("503 Service Unavailable", "no store").await;
    let error = client.fetch(hyper::Method::POST, &broken, "{}".to_owned()).await.unwrap_err().to_string();
    assert!(error.contains("503") && error.contains("no store"), "{error}");
}
