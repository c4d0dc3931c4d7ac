//! What `--peer` takes, and what it does not.

use super::Way;
use super::counted::Counted;
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
