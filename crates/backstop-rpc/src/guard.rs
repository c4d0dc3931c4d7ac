//! What stands in front of every RPC of ours: a span, the caller's deadline, and honest codes for bad bytes.
//!
//! tonic answers CANCELLED when the caller's deadline passes, INTERNAL for bytes that are no message, and
//! OUT_OF_RANGE for a message over its limit. The first is DEADLINE_EXCEEDED, the others are the caller's
//! INVALID_ARGUMENT.
//!
//! # Not here
//! The end of a stream that has begun: it is given its caller's [`Deadline`], and keeps it itself
//! (`services::sagas`, WatchSaga).

use crate::status_reply::{deadline_exceeded, invalid};
use crate::trace;
use backstop_core::Fault;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::{Instrument, Span};

/// How tonic begins its words on bytes that are no message of the expected type.
const NO_MESSAGE: &str = "failed to decode Protobuf message";
/// How tonic begins its words on a message over the limit.
const TOO_LARGE: &str = "Error, decoded message length too large";

/// When a request's caller waits no longer. Among the request's extensions, if the caller said so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(pub(crate) Instant);

/// Puts a [`Guard`] in front of services.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GuardLayer;

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { inner }
    }
}

/// The guard of one service.
#[derive(Debug, Clone)]
pub(crate) struct Guard<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // Taken out of the request, so that tonic does not apply it too.
        let deadline = request.headers_mut().remove("grpc-timeout").and_then(|value| timeout(&value));
        let deadline = deadline.and_then(|left| Instant::now().checked_add(left));
        if let Some(deadline) = deadline {
            request.extensions_mut().insert(Deadline(deadline));
        }
        let callers = trace::callers(request.headers());
        let span = trace::server_span(request.uri().path(), request.headers());
        let answer = span.in_scope(|| self.inner.call(request));
        let guarded = async move {
            let answered = match deadline {
                None => answer.await,
                Some(deadline) => match tokio::time::timeout_at(deadline, answer).await {
                    Ok(answered) => answered,
                    Err(_) => Ok(deadline_exceeded().into_http()),
                },
            };
            let answered = answered.map(honest);
            if let Ok(response) = &answered {
                let status = Status::from_header_map(response.headers());
                trace::server_ended(&Span::current(), status.map_or(Code::Ok, |status| status.code()));
            }
            answered
        };
        Box::pin(trace::placed(callers, guarded.instrument(span)))
    }
}

fn honest(response: Response<Body>) -> Response<Body> {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    let fault = match status.code() {
        Code::Internal if status.message().starts_with(NO_MESSAGE) => "is no message of the expected type",
        Code::OutOfRange if status.message().starts_with(TOO_LARGE) => "is larger than request_bytes_max",
        _ => return response,
    };
    invalid(&[Fault::new("(request)", format!("{fault}: {}", status.message()))]).into_http()
}

/// Reads `grpc-timeout`: at most eight digits and a unit.
pub(crate) fn timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        let read = |text: &str| timeout(&HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("")));
        assert_eq!(read("100m"), Some(Duration::from_millis(100)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "m", "100", "123456789m", "-1m", "1x"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
