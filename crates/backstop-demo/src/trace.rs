//! A server span for each call that a service is asked, below the caller's: what any service of a bank has from its
//! own framework.

use http::{HeaderMap, Request, Response};
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, global};
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll};
use tonic::Code;
use tower::{Layer, Service};

/// What Backstop says with each call that a person would look for.
const TOLD: [&str; 4] = ["backstop-saga-id", "backstop-step", "backstop-phase", "backstop-attempt"];

/// Puts spans around services; they go to the global provider, and nowhere if nobody has set one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TraceLayer;

impl<S> Layer<S> for TraceLayer {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced { inner }
    }
}

/// One service with spans.
#[derive(Debug, Clone)]
pub(crate) struct Traced<S> {
    inner: S,
}

impl<S, A, B> Service<Request<A>> for Traced<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let span = begin(request.uri().path(), request.headers());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            // An answer without a message has its status where others have their headers.
            let code = answer.as_ref().ok().and_then(|answer| answer.headers().get("grpc-status"));
            let code = code.map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
            end(&span, code);
            answer
        })
    }
}

fn begin(path: &str, headers: &HeaderMap) -> Context {
    let method = path.trim_start_matches('/').to_owned();
    let tracer = global::tracer("backstop-demo");
    let caller = global::get_text_map_propagator(|propagator| propagator.extract(&Headers(headers)));
    let mut attributes =
        vec![KeyValue::new("rpc.system.name", "grpc"), KeyValue::new("rpc.method", method.clone())];
    attributes.extend(TOLD.iter().filter_map(|name| {
        let value = headers.get(*name)?.to_str().ok()?;
        Some(KeyValue::new(name.replacen("backstop-", "backstop.", 1).replace('-', "."), value.to_owned()))
    }));
    let span = tracer
        .span_builder(method)
        .with_kind(SpanKind::Server)
        .with_attributes(attributes)
        .start_with_context(&tracer, &caller);
    Context::new().with_span(span)
}

fn end(span: &Context, code: Code) {
    let span = span.span();
    span.set_attribute(KeyValue::new("rpc.status_code", i64::from(i32::from(code))));
    if code != Code::Ok {
        span.set_status(Status::error(code.description()));
    }
    span.end();
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
