//! Rows of either engine become the codec's rows and then the port's values. A column that cannot be
//! fetched makes its row unreadable, by name.
//!
//! # Not here
//! SQL: `postgres`, `sqlite`. What the columns mean: `codec`.

use crate::codec::event::EventRow;
use crate::codec::head::HeadRow;
use crate::codec::{DecodeError, decode, definition, from_i64, head, text};
use backstop_core::{
    CoordinatorId, DefinitionName, DefinitionRef, Event, ParticipantName, Revision, SagaId, Timestamp,
};
use backstop_engine::ports::store::{
    CoordinatorRow, Head, Journal, Orphan, Participant, StoreError, StoreResult, StoredRevision, Unsettled,
};
use bytes::Bytes;
use sqlx::{ColumnIndex, Database, Decode, Row, Type};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

/// A row whose columns can be of the few types that the tables use.
pub(crate) trait Columns<'r> {
    fn text(&'r self, column: &'static str) -> Result<String, DecodeError>;
    fn text_or_null(&'r self, column: &'static str) -> Result<Option<String>, DecodeError>;
    fn number(&'r self, column: &'static str) -> Result<i64, DecodeError>;
    fn number_or_null(&'r self, column: &'static str) -> Result<Option<i64>, DecodeError>;
    fn small(&'r self, column: &'static str) -> Result<i16, DecodeError>;
    fn flag(&'r self, column: &'static str) -> Result<bool, DecodeError>;
    fn bytes(&'r self, column: &'static str) -> Result<Vec<u8>, DecodeError>;
}

impl<'r, R> Columns<'r> for R
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    i16: Decode<'r, R::Database> + Type<R::Database>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
{
    fn text(&'r self, column: &'static str) -> Result<String, DecodeError> {
        get(self, column)
    }
    fn text_or_null(&'r self, column: &'static str) -> Result<Option<String>, DecodeError> {
        get(self, column)
    }
    fn number(&'r self, column: &'static str) -> Result<i64, DecodeError> {
        get(self, column)
    }
    fn number_or_null(&'r self, column: &'static str) -> Result<Option<i64>, DecodeError> {
        get(self, column)
    }
    fn small(&'r self, column: &'static str) -> Result<i16, DecodeError> {
        get(self, column)
    }
    fn flag(&'r self, column: &'static str) -> Result<bool, DecodeError> {
        get(self, column)
    }
    fn bytes(&'r self, column: &'static str) -> Result<Vec<u8>, DecodeError> {
        get(self, column)
    }
}

fn get<'r, R, T>(row: &'r R, column: &'static str) -> Result<T, DecodeError>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    T: Decode<'r, R::Database> + Type<R::Database>,
    R::Database: Database,
{
    row.try_get(column).map_err(|error| DecodeError::malformed(column, error))
}

/// An event's row, all columns but the one that decides its partition.
pub(crate) fn event_row<'r>(row: &'r impl Columns<'r>) -> StoreResult<EventRow<'static>> {
    let saga = row.text("saga_id").map_err(|error| error.of("an event"))?;
    let seq = row.number("seq").map_err(|error| error.of(format!("an event of saga {saga}")))?;
    let rest = || -> Result<EventRow<'static>, DecodeError> {
        let word = |column| row.text_or_null(column).map(|text| text.map(Cow::Owned));
        Ok(EventRow {
            saga: Cow::Owned(saga.clone()),
            seq,
            kind: Cow::Owned(row.text("kind")?),
            step: word("step")?,
            phase: word("phase")?,
            attempt: row.number_or_null("attempt")?,
            status: word("status")?,
            evidence: word("evidence")?,
            effect: word("effect")?,
            fin_code: word("fin_code")?,
            tier: word("tier")?,
            clock: row.number("clock")?,
            epoch: row.number("epoch")?,
            at: row.number("at")?,
            elapsed_us: row.number_or_null("elapsed_us")?,
            message: word("message")?,
            format: row.small("format")?,
            payload: row.bytes("payload")?,
        })
    };
    rest().map_err(|error| decode::unreadable(&saga, seq, error))
}

/// An event.
pub(crate) fn event<'r>(row: &'r impl Columns<'r>) -> StoreResult<Event> {
    decode::decode(event_row(row)?)
}

/// A batch of journals, in the order asked for, of heads and of events in order. What cannot be read is an error
/// at its place only.
pub(crate) fn journals<'r, R: Columns<'r>>(
    sagas: &[SagaId],
    heads: &'r [R],
    events: &'r [R],
) -> StoreResult<Vec<StoreResult<Option<Journal>>>> {
    let mut found: BTreeMap<String, StoreResult<Journal>> = BTreeMap::new();
    for row in heads {
        let id = row.text("id").map_err(|error| error.of("a saga"))?;
        found.insert(id, head(row).map(|head| Journal { head, events: Vec::new() }));
    }
    for row in events {
        let id = row.text("saga_id").map_err(|error| error.of("an event"))?;
        let Some(slot) = found.get_mut(&id) else { continue };
        if let Ok(journal) = slot {
            match event(row) {
                Ok(event) => journal.events.push(event),
                Err(error) => *slot = Err(error),
            }
        }
    }
    Ok(sagas.iter().map(|saga| found.get(saga.as_str()).cloned().transpose()).collect())
}

/// A head, of all columns of `saga`.
pub(crate) fn head<'r>(row: &'r impl Columns<'r>) -> StoreResult<Head> {
    let id = row.text("id").map_err(|error| error.of("a saga"))?;
    let rest = || -> Result<HeadRow<'static>, DecodeError> {
        Ok(HeadRow {
            id: Cow::Owned(id.clone()),
            definition: Cow::Owned(row.text("definition")?),
            revision: row.number("revision")?,
            state: Cow::Owned(row.text("state")?),
            seq: row.number("seq")?,
            epoch: row.number("epoch")?,
            owner: row.text_or_null("owner")?.map(Cow::Owned),
            wake_at: row.number_or_null("wake_at")?,
            fin_code: row.text_or_null("fin_code")?,
            labels: row.text("labels")?,
            fingerprint: Cow::Owned(row.bytes("fingerprint")?),
            created_at: row.number("created_at")?,
            updated_at: row.number("updated_at")?,
            ended_at: row.number_or_null("ended_at")?,
            quarantine: row.text_or_null("quarantine")?.map(Cow::Owned),
            retired: row.flag("retired")?,
        })
    };
    head::decode(rest().map_err(|error| error.of(format!("the head of saga {id}")))?)
}

/// What of one definition waits, of `definition`, `waiting`, `waiting_since` and `rolling_back_since`.
pub(crate) fn unsettled<'r>(row: &'r impl Columns<'r>) -> StoreResult<Unsettled> {
    let name = row.text("definition").map_err(|error| error.of("a count of sagas"))?;
    let read = || -> Result<Unsettled, DecodeError> {
        Ok(Unsettled {
            definition: DefinitionName::parse(&name)
                .map_err(|_| DecodeError::unknown("definition", name.clone()))?,
            waiting: from_i64("waiting", row.number("waiting")?)?,
            waiting_since: row.number_or_null("waiting_since")?.map(Timestamp),
            rolling_back_since: row.number_or_null("rolling_back_since")?.map(Timestamp),
        })
    };
    read().map_err(|error| error.of(format!("the sagas of definition {name}")))
}

/// An orphan, of `id` and `owner`. One that cannot be read is told in the log and left out: it must not
/// keep the others from being taken over.
pub(crate) fn orphan<'r>(row: &'r impl Columns<'r>) -> Option<Orphan> {
    let read = || -> Result<Orphan, DecodeError> {
        let saga = head::saga_id(&row.text("id")?)?;
        let owner = row.text_or_null("owner")?;
        let owner = owner
            .map(|id| CoordinatorId::parse(&id).map_err(|_| DecodeError::unknown("owner", id.clone())))
            .transpose()?;
        Ok(Orphan { saga, owner })
    };
    read().inspect_err(|error| tracing::error!(%error, "an orphaned saga cannot be read")).ok()
}

/// A revision, of all columns of `definition`.
pub(crate) fn revision<'r>(row: &'r impl Columns<'r>) -> StoreResult<StoredRevision> {
    let name = row.text("name").map_err(|error| error.of("a definition"))?;
    let number = row.number("revision").map_err(|error| error.of(format!("definition {name}")))?;
    let read = || -> Result<StoredRevision, DecodeError> {
        let parsed = DefinitionName::parse(&name).map_err(|_| DecodeError::unknown("name", name.clone()))?;
        Ok(StoredRevision {
            reference: DefinitionRef { name: parsed, revision: Revision(from_i64("revision", number)?) },
            spec: definition::decode(&row.text("spec")?)?,
            descriptors: Bytes::from(row.bytes("descriptors")?),
            fingerprint: head::fingerprint(&row.bytes("fingerprint")?)?,
            created_at: Timestamp(row.number("created_at")?),
        })
    };
    read().map_err(|error| error.of(format!("definition {name}@{number}")))
}

/// A participant, of all columns.
pub(crate) fn participant<'r>(row: &'r impl Columns<'r>) -> StoreResult<Participant> {
    let name = row.text("name").map_err(|error| error.of("a participant"))?;
    let read = || -> Result<Participant, DecodeError> {
        let malformed = |error: serde_json::Error| DecodeError::malformed("endpoints", error);
        Ok(Participant {
            name: ParticipantName::parse(&name).map_err(|_| DecodeError::unknown("name", name.clone()))?,
            endpoints: serde_json::from_str(&row.text("endpoints")?).map_err(malformed)?,
            deduplicates_by_key: row.flag("deduplicates_by_key")?,
            rollback_listener: row.flag("rollback_listener")?,
            in_flight_max: from_i64("in_flight_max", row.number("in_flight_max")?)?,
            keepalive: Duration::from_micros(from_i64("keepalive_us", row.number("keepalive_us")?)?),
            updated_at: Timestamp(row.number("updated_at")?),
        })
    };
    read().map_err(|error| error.of(format!("participant {name}")))
}

/// The endpoints as their column holds them.
pub(crate) fn endpoints_to_column(endpoints: &[String]) -> StoreResult<String> {
    serde_json::to_string(endpoints).map_err(|error| StoreError::NotApplied(format!("endpoints: {error}")))
}

/// A coordinator, of all columns; expired or not by `now`.
pub(crate) fn coordinator<'r>(row: &'r impl Columns<'r>) -> StoreResult<CoordinatorRow> {
    let id = row.text("id").map_err(|error| error.of("a coordinator"))?;
    let read = || -> Result<CoordinatorRow, DecodeError> {
        Ok(CoordinatorRow {
            coordinator: CoordinatorId::parse(&id).map_err(|_| DecodeError::unknown("id", id.clone()))?,
            address: text::from_column("address", &row.text("address")?)?,
            started_at: Timestamp(row.number("started_at")?),
            expires_at: Timestamp(row.number("expires_at")?),
            expired: row.flag("expired")?,
            draining: row.flag("draining")?,
        })
    };
    read().map_err(|error| error.of(format!("coordinator {id}")))
}

/// A duration as microseconds in a column.
pub(crate) fn micros(what: &'static str, duration: Duration) -> StoreResult<i64> {
    i64::try_from(duration.as_micros())
        .map_err(|_| StoreError::NotApplied(format!("{what} is too long to store")))
}

/// A count that SQL answered.
pub(crate) fn count(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// A count as a limit in SQL.
pub(crate) fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
