//! Filters, page tokens, StartSaga, endpoints, and the metadata of requests.

use crate::services::sagas::start_command;
use crate::status_reply::invalid;
use crate::{convert, filter, guard, page, trace};
use backstop_core::{DefinitionName, Fault, SagaId, Timestamp};
use backstop_engine::Settings;
use backstop_engine::ports::store::{SagaCursor, SagaFilter};
use backstop_fuzz::{Kind, Target};
use backstop_proto::v1;
use http::{HeaderMap, HeaderValue};
use prost::Message;
use tonic::metadata::MetadataMap;

/// Headers of a status that some clients would take no more of: 8 KiB, less what stands beside them.
const STATUS_BYTES_MAX: usize = 8_000;

fn target(name: &'static str, kind: Kind) -> Target {
    Target::new(name, env!("CARGO_MANIFEST_DIR"), kind)
}

/// A refusal names fields, and its status fits into any client's headers.
pub(super) fn is_a_clear_refusal(faults: &[Fault]) {
    assert!(!faults.is_empty());
    for fault in faults {
        assert!(!fault.path.is_empty() && !fault.description.is_empty(), "{fault:?}");
    }
    let mut headers = HeaderMap::new();
    invalid(faults).add_header(&mut headers).unwrap();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    assert!(bytes < STATUS_BYTES_MAX, "a status of {bytes} bytes for {} faults", faults.len());
}

/// A filter as one would write it: the inverse of parsing.
fn print(filter: &SagaFilter) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let at = |at: Timestamp| quoted(&convert::time::wire_timestamp(at).to_string());
    let mut terms: Vec<String> = Vec::new();
    let states: Vec<String> =
        filter.states.iter().map(|state| format!("state = {}", state.as_str())).collect();
    if !states.is_empty() {
        terms.push(format!("({})", states.join(" OR ")));
    }
    terms.extend(filter.definition.iter().map(|name| format!("definition = {}", quoted(name.as_str()))));
    terms.extend(filter.fin_code.iter().map(|code| format!("fin_code={code}")));
    terms.extend(filter.labels.iter().map(|(key, value)| format!("labels.{key} = {}", quoted(value))));
    terms.extend(filter.created_from.iter().map(|from| format!("create_time >= {}", at(*from))));
    terms.extend(filter.created_before.iter().map(|before| format!("create_time < {}", at(*before))));
    terms.join(" AND ")
}

#[test]
fn filter() {
    const WORDS: &[&str] = &[
        "state",
        "definition",
        "fin_code",
        "labels.",
        "labels.labels.x",
        "create_time",
        "AND",
        "OR",
        "NOT",
        "(",
        ")",
        "=",
        ">=",
        "<",
        "<=",
        "!=",
        ":",
        "\"",
        "\\\"",
        "SAGA_STATE_RUNNING",
        "NEEDS_INTERVENTION",
        "FIN-40005",
        "9999-12-31T23:59:60Z",
        "0001-01-01T00:00:00Z",
        "2026-02-30T25:61:61.999999999+99:99",
        "-262144-01-01T00:00:00Z",
        "292277026596-12-04T15:30:07Z",
    ];
    target("filter", Kind::Text).words(WORDS).run(2_000, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        match filter::parse(text) {
            Ok(read) => {
                let printed = print(&read);
                // Times beyond the year 9999 have no text that is read again; they are compared, not shown.
                let shown = |at: Option<Timestamp>| {
                    at.is_none_or(|at| (-62_135_596_800..253_402_300_800).contains(&(at.0 / 1_000_000)))
                };
                if printed.len() <= filter::FILTER_BYTES_MAX
                    && shown(read.created_from)
                    && shown(read.created_before)
                {
                    assert_eq!(
                        filter::parse(&printed).as_ref(),
                        Ok(&read),
                        "{text:?} printed as {printed:?}"
                    );
                }
            }
            Err(fault) => {
                assert_eq!(fault.path, "filter");
                is_a_clear_refusal(&[fault]);
            }
        }
    });
}

#[test]
fn page_token() {
    let filter = "state = RUNNING";
    target("page_token", Kind::Bytes).run(2_000, |input| {
        let text = String::from_utf8_lossy(input);
        for read in [
            page::saga_cursor(&text, filter)
                .map(|cursor| cursor.map(|cursor| page::saga_token(&cursor, filter))),
            page::name_after(&text, DefinitionName::parse)
                .map(|name| name.map(|n| page::name_token(n.as_str()))),
        ] {
            match read {
                // What is accepted is, digit for digit, what we wrote.
                Ok(ours) => assert_eq!(ours.unwrap_or_default(), text),
                Err(fault) => assert_eq!(fault.path, "page_token"),
            }
        }
        // A token of ours with one of its bytes changed.
        let id: String = text.chars().filter(char::is_ascii_graphic).take(60).collect();
        let (Ok(saga), Some(change)) = (SagaId::parse(&id), input.first()) else { return };
        let cursor = SagaCursor { created_at: Timestamp(i64::from(*change) - 100), saga };
        let token = page::saga_token(&cursor, filter);
        assert_eq!(page::saga_cursor(&token, filter), Ok(Some(cursor)));
        assert!(page::saga_cursor(&token, "state = SUCCEEDED").is_err());
        let mut changed = token.clone().into_bytes();
        let at = input.len() % changed.len();
        changed[at] = b"0123456789abcdefABCDEF+ "[usize::from(*change) % 24];
        let changed = String::from_utf8(changed).unwrap();
        assert!(changed == token || page::saga_cursor(&changed, filter).is_err(), "{changed} for {token}");
        assert!(page::saga_cursor(&token[..at], filter).is_err() || at == 0);
    });
}

#[test]
fn start_saga() {
    let settings = Settings::default();
    target("start_saga", Kind::Protobuf).run(2_000, |input| {
        let Ok(request) = v1::StartSagaRequest::decode(input) else { return };
        match start_command(&settings, request.clone(), "00-1-2-00".to_owned()) {
            Ok((command, wait)) => {
                assert!(wait.is_none_or(|wait| wait <= settings.wait_max));
                assert!(command.input.len() <= settings.input_bytes_max);
                assert!(command.labels.len() <= settings.labels_max);
                assert!(
                    command.labels.iter().all(|(key, value)| !key.contains('\0') && !value.contains('\0'))
                );
                // What was taken in is what was sent: no amount changes on the way.
                let sent = request.input.clone().unwrap_or_default();
                assert_eq!(convert::json::structure(&command.input), canonical(sent));
                // The same request again is the same request.
                let again = start_command(&settings, request, String::new()).unwrap();
                assert_eq!(again.0.fingerprint, command.fingerprint);
            }
            Err(faults) => is_a_clear_refusal(&faults[..]),
        }
    });
}

/// A value without a kind is null, and there is one zero.
fn canonical(mut wire: prost_types::Struct) -> prost_types::Struct {
    wire.fields.values_mut().for_each(canonical_value);
    wire
}

fn canonical_value(value: &mut prost_types::Value) {
    use prost_types::value::Kind as Of;
    match &mut value.kind {
        None => value.kind = Some(Of::NullValue(0)),
        Some(Of::NullValue(number)) => *number = 0,
        Some(Of::NumberValue(number)) => *number += 0.0,
        Some(Of::StructValue(inner)) => inner.fields.values_mut().for_each(canonical_value),
        Some(Of::ListValue(list)) => list.values.iter_mut().for_each(canonical_value),
        Some(Of::BoolValue(_) | Of::StringValue(_)) => {}
    }
}

#[test]
fn metadata() {
    const WORDS: &[&str] = &["traceparent: ", "grpc-timeout: ", "99999999H", "00-", "-01", "ff-"];
    target("metadata", Kind::Text).words(WORDS).run(2_000, |input| {
        let mut headers = HeaderMap::new();
        for line in input.split(|byte| *byte == b'\n') {
            let Some(at) = line.windows(2).position(|two| two == b": ") else { continue };
            let name = http::HeaderName::from_bytes(&line[..at]);
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&line[at + 2..])) {
                headers.append(name, value);
            }
        }
        if let Some(timeout) = headers.get("grpc-timeout").and_then(guard::timeout) {
            assert!(std::time::Instant::now().checked_add(timeout).is_some());
        }
        let _span = trace::server_span("/backstop.v1.SagaService/StartSaga", &headers);
        let place = trace::trace_parent(&MetadataMap::from_headers(headers));
        // Whatever was sent, what the saga's calls will bear is one that any service reads.
        assert!(crate::traces::place::parse(&place).is_some(), "{place}");
        assert!(HeaderValue::from_str(&place).is_ok());
    });
}

#[test]
fn participant() {
    const WORDS: &[&str] =
        &["http://", "https://", "[::1]", ":65536", ":0", "@", "/", "?", "#", "xn--", "%00"];
    target("participant", Kind::Protobuf).words(WORDS).run(2_000, |input| {
        let Ok(wire) = v1::Participant::decode(input) else { return };
        match convert::definition::participant(&wire) {
            Ok(participant) => {
                assert!(participant.endpoints.len() <= convert::definition::ENDPOINTS_MAX);
                for endpoint in &participant.endpoints {
                    // What is stored can be called.
                    let address = crate::participants::Address::parse(endpoint).unwrap();
                    assert_eq!(crate::participants::Address::parse(&address.to_string()), Ok(address));
                }
                assert!(i64::try_from(participant.keepalive.as_micros()).is_ok());
            }
            Err(faults) => is_a_clear_refusal(&faults[..]),
        }
    });
}
