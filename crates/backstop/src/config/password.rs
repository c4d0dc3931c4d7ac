//! The database's password out of a file: what containers and Kubernetes mount a secret as.
//!
//! # Invariants
//! * The password is in no message and in nothing that is printed (`a_password_comes_out_of_its_file_and_is_never_shown`).
//! * A URL with a password and a file with another is a fault, not a choice.

use std::fmt::Write;
use std::path::Path;

/// The URL with the password that a file holds; a line's end at the file's end is not part of it.
///
/// # Errors
/// What is wrong with `postgres.password_file`, in words.
pub(super) fn from_file(url: &str, file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let password =
        text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if password.is_empty() {
        return Err(format!("{} is empty", file.display()));
    }
    let (scheme, rest) = url.split_once("://").ok_or("the store's URL has no host")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((user, host)) = authority.rsplit_once('@').filter(|(user, _)| !user.is_empty()) else {
        return Err("the store's URL names no user for it".to_owned());
    };
    if user.contains(':') {
        return Err("the store's URL has a password already".to_owned());
    }
    Ok(format!("{scheme}://{user}:{}@{host}{path}", percent_encoded(password)))
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Flags, StoreUrl, load, print};
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_password_comes_out_of_its_file_and_is_never_shown() {
        let secret = file("p@ss/w:rd é\n");
        let settings = file(&format!("[postgres]\npassword_file = '{}'", secret.path().display()));
        let flags = Flags {
            config: Some(settings.path().to_owned()),
            store: Some("postgres://bank@db:5432/backstop?sslmode=require".to_owned()),
            ..Flags::default()
        };
        let expected = "postgres://bank:p%40ss%2Fw%3Ard%20%C3%A9@db:5432/backstop?sslmode=require";
        assert_eq!(load(&flags).unwrap().store, StoreUrl::Postgres(expected.to_owned()));
        assert!(!print(&flags).unwrap().contains("p%40ss"));
        assert!(print(&flags).unwrap().contains("bank:***@db:5432/backstop"));
    }

    #[test]
    fn a_file_that_is_of_no_use_is_a_fault() {
        let secret = file("secret");
        let of = |url: &str, file: &Path| from_file(url, file).unwrap_err();
        assert_eq!(of("postgres://a:b@db/x", secret.path()), "the store's URL has a password already");
        assert_eq!(of("postgres://db/x", secret.path()), "the store's URL names no user for it");
        assert!(of("postgres://a@db/x", file("\n").path()).ends_with("is empty"));
        assert!(of("postgres://a@db/x", Path::new("/nowhere")).starts_with("/nowhere: "));
    }
}
