//! As much HTTP as the stack is asked with, and as Alertmanager tells its receiver with: GET of JSON, and a POST that is
//! taken and remembered.
//!
//! # Invariants
//! * Nobody is waited for longer than [`ANSWER_MAX`].

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Longest wait for any one answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The body of an answer that is 2xx.
pub(super) fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    // Version 1.0: the answer is whole when the connection ends, and comes in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if !status.starts_with('2') {
        bail!("{path}: {status} {}", body.trim());
    }
    Ok(body.to_owned())
}

/// The same, read as JSON.
pub(super) fn get_json(address: SocketAddr, path: &str) -> Result<Value> {
    serde_json::from_str(&get(address, path)?).with_context(|| format!("{path}: no JSON"))
}

/// Text as part of a query.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Takes what is posted to it, as a pager would.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    taken: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Receiver {
    /// Listens until the program ends.
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let taken: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let posts = Arc::clone(&taken);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // One that breaks off is sent again.
                if let Ok(post) = take(stream) {
                    posts.lock().unwrap_or_else(PoisonError::into_inner).push(post);
                }
            }
        });
        Ok(Self { address, taken })
    }

    /// What was posted so far: path and body.
    pub(super) fn taken(&self) -> Vec<(String, Value)> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn take(stream: TcpStream) -> Result<(String, Value)> {
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse()?
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    Ok((path, serde_json::from_slice(&body)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_posted_is_remembered_with_its_path() {
        let receiver = Receiver::start().unwrap();
        let mut stream = TcpStream::connect(receiver.address).unwrap();
        write!(stream, "POST /page HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{{\"a\": 12}}").unwrap();
        let mut answer = String::new();
        // What is cut off is no JSON.
        let _ = stream.read_to_string(&mut answer);
        assert!(receiver.taken().is_empty());
        let mut stream = TcpStream::connect(receiver.address).unwrap();
        write!(stream, "POST /page HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n{{\"a\": 1}}").unwrap();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"));
        while receiver.taken().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(receiver.taken(), [("/page".to_owned(), serde_json::json!({ "a": 1 }))]);
    }

    #[test]
    fn a_query_is_encoded() {
        assert_eq!(encoded("a{b=\"c d\"}"), "a%7Bb%3D%22c%20d%22%7D");
    }
}
