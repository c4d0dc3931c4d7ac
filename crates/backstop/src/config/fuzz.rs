//! Settings files that nobody checked.
#![allow(clippy::unwrap_used)]

use super::*;
use backstop_fuzz::{Kind, Target};

#[test]
fn config() {
    const WORDS: &[&str] = &[
        "store",
        "listen",
        "[lease]",
        "ttl",
        "renew_every",
        "[limits]",
        "[retention]",
        "journals_for",
        "ids_for",
        "[error_domains.payment.NOT_FOUND]",
        "tier",
        "\"L3\"",
        "fin_code",
        "http_status",
        "retry",
        "true",
        "=",
        "'",
        "\"\"\"",
        "\"P9999999Y\"",
        "\"9223372036854775807s\"",
        "\"1ns\"",
        "\"-1s\"",
        "inf",
        "nan",
        "[[",
        "]]",
        "{}",
        "sqlite:",
        "postgres://u:p@h/d?password=x",
        "127.0.0.1:0",
        "[::]:1",
    ];
    let file = tempfile::NamedTempFile::new().unwrap();
    let shown = tempfile::NamedTempFile::new().unwrap();
    let flags =
        |file: &tempfile::NamedTempFile| Flags { config: Some(file.path().to_owned()), ..Flags::default() };
    Target::new("config", env!("CARGO_MANIFEST_DIR"), Kind::Text).words(WORDS).run(150, |input| {
        std::fs::write(file.path(), input).unwrap();
        match load(&flags(&file)) {
            Ok(read) => {
                assert!(read.engine.lease_renew_every * 3 <= read.engine.lease_ttl);
                // What is shown is what is in force; a password is not.
                let text = print(&flags(&file)).unwrap();
                std::fs::write(shown.path(), &text).unwrap();
                let again = load(&flags(&shown)).unwrap();
                assert_eq!(format!("{:?}", again.engine), format!("{:?}", read.engine), "{text}");
                assert_eq!(format!("{:?}", again.telemetry), format!("{:?}", read.telemetry), "{text}");
            }
            Err(error) => assert!(!format!("{error:#}").is_empty()),
        }
    });
}
