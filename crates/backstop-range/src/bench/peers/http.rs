//! One saga for one HTTP request: a small client, and the adapter that a user can point at anything.

use super::{BRANCHES, Way, participants};
use crate::bench::ground::Ground;
use crate::bench::shape::Saga;
use crate::bench::system::{Group, System};
use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

/// Longest wait for an answer; nothing in a healthy run comes near it.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Keeps as many connections as there are requests under way, HTTP/1.1: no peer's limit of streams holds anything back.
#[derive(Debug, Clone)]
pub(super) struct Client(hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>);

impl Client {
    pub(super) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector))
    }

    /// Asks, with a body of JSON if there is any.
    ///
    /// # Errors
    /// If nothing answers in time.
    pub(super) async fn ask(&self, method: Method, uri: Uri, body: String) -> Result<(StatusCode, Bytes)> {
        let request = Request::builder().method(method).uri(uri).header(CONTENT_TYPE, "application/json");
        let request = request.body(Full::new(Bytes::from(body)))?;
        let asking = async {
            let answer = self.0.request(request).await?;
            let status = answer.status();
            anyhow::Ok((status, answer.into_body().collect().await?.to_bytes()))
        };
        tokio::time::timeout(ANSWER_MAX, asking).await.context("no answer")?
    }

    /// Asks for something that is there, or an error with what was said.
    ///
    /// # Errors
    /// If it is not answered with 2xx.
    pub(super) async fn fetch(&self, method: Method, uri: &str, body: String) -> Result<Bytes> {
        let (status, answer) = self.ask(method, uri.parse()?, body).await?;
        if !status.is_success() {
            bail!("{uri}: {status} {}", String::from_utf8_lossy(&answer));
        }
        Ok(answer)
    }
}

/// `METHOD URL TEMPLATE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    method: Method,
    uri: String,
    body: String,
}

impl FromStr for Template {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.trim().splitn(3, char::is_whitespace);
        let (Some(method), Some(uri)) = (words.next(), words.next()) else {
            bail!("http=METHOD URL TEMPLATE, not {text}");
        };
        let body = words.next().unwrap_or_default().trim().to_owned();
        let template = Self { method: method.parse()?, uri: uri.to_owned(), body };
        if !uri.starts_with("http://") {
            bail!("http=METHOD URL TEMPLATE: the URL begins with http://, not {uri}");
        }
        if !(uri.contains("{id}") || template.body.contains("{id}")) {
            bail!("http=METHOD URL TEMPLATE: {{id}} stands in neither, so all requests would mean one saga");
        }
        Ok(template)
    }
}

/// `{id}`, `{a}`, `{b}`, `{c}`: what else stands in braces is the template's own.
pub(super) fn fill(text: &str, id: &str, participants: &[SocketAddr; BRANCHES]) -> String {
    let mut filled = text.replace("{id}", id);
    for (name, address) in ["{a}", "{b}", "{c}"].iter().zip(participants) {
        filled = filled.replace(name, &address.to_string());
    }
    filled
}

/// Whatever the user has pointed us at.
#[derive(Debug)]
pub(super) struct Http {
    name: String,
    client: Client,
    template: Template,
    participants: [SocketAddr; BRANCHES],
}

impl Http {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// If the ground has not all its participants.
    pub(super) fn new(template: Template, ground: &Ground) -> Result<Self> {
        let name = format!("http {}", template.uri);
        Ok(Self { name, client: Client::new(), template, participants: participants(ground)? })
    }
}

#[tonic::async_trait]
impl System for Http {
    fn name(&self) -> &str {
        &self.name
    }

    fn processes(&self) -> Vec<Group> {
        Vec::new()
    }

    fn settings(&self) -> Vec<String> {
        vec![
            "whatever answers there; how durable it is and where it runs is for whoever started it to say"
                .to_owned(),
        ]
    }

    async fn prepare(&self, saga: Saga) -> Result<bool> {
        // What a refusal does to the answer, only the user knows; and the shape is what the other side makes of it.
        Ok(saga.filler == 0 && matches!(Way::of(saga), Some(Way::Concurrent | Way::Sequential)))
    }

    async fn run_one(&self, _: Saga, id: String) -> Result<()> {
        let uri = fill(&self.template.uri, &id, &self.participants);
        let body = fill(&self.template.body, &id, &self.participants);
        self.client.fetch(self.template.method.clone(), &uri, body).await?;
        Ok(())
    }
}
