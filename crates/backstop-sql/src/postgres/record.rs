//! Rows as values of the types `append_head` and `append_event`, in the binary form of PostgreSQL: the number of fields, then
//! for each the type, the length in bytes (-1: null) and the value.
//!
//! The driver makes arrays of what is here and finds out the numbers of the two types. The fields have types whose
//! numbers never change, and are written here in the order of `migrations/postgres/0004_append_rows.sql`; a server that finds
//! another type at a place refuses the statement.
//!
//! # Not here
//! What the columns mean: `crate::codec`.

use crate::batch::EncodedAppend;
use crate::codec::event::EventRow;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, Postgres};
use sqlx::{Encode, Type};

const HEAD: &str = "append_head";
const EVENT: &str = "append_event";

/// Types of fields, by their numbers in `pg_type`.
const BYTEA: u32 = 17;
const BIGINT: u32 = 20;
const SMALLINT: u32 = 21;
const TEXT: u32 = 25;

/// The head row of an append.
pub(super) struct Head<'a>(pub(super) &'a EncodedAppend<'a>);

/// An event, and the birth of its saga.
pub(super) struct Event<'a>(pub(super) &'a EventRow<'a>, pub(super) i64);

impl Type<Postgres> for Head<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name(HEAD)
    }
}

impl PgHasArrayType for Head<'_> {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::array_of(HEAD)
    }
}

impl Encode<'_, Postgres> for Head<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let head = &self.0.head;
        let mut record = Record::begin(buffer, 15);
        record.text(Some(&head.id))?;
        record.bigint(Some(self.0.expected))?;
        record.text(Some(&head.definition))?;
        record.bigint(Some(head.revision))?;
        record.text(Some(&head.state))?;
        record.bigint(Some(head.seq))?;
        record.bigint(Some(head.epoch))?;
        record.text(head.owner.as_deref())?;
        record.bigint(head.wake_at)?;
        record.text(head.fin_code.as_deref())?;
        record.text(Some(&head.labels))?;
        record.bytea(&head.fingerprint)?;
        record.bigint(Some(head.created_at))?;
        record.bigint(Some(head.updated_at))?;
        record.bigint(head.ended_at)?;
        Ok(IsNull::No)
    }
}

impl Type<Postgres> for Event<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name(EVENT)
    }
}

impl PgHasArrayType for Event<'_> {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::array_of(EVENT)
    }
}

impl Encode<'_, Postgres> for Event<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let Self(event, born) = self;
        let mut record = Record::begin(buffer, 19);
        record.text(Some(&event.saga))?;
        record.bigint(Some(event.seq))?;
        record.text(Some(&event.kind))?;
        record.text(event.step.as_deref())?;
        record.text(event.phase.as_deref())?;
        record.bigint(event.attempt)?;
        record.text(event.status.as_deref())?;
        record.text(event.evidence.as_deref())?;
        record.text(event.effect.as_deref())?;
        record.text(event.fin_code.as_deref())?;
        record.text(event.tier.as_deref())?;
        record.bigint(Some(event.clock))?;
        record.bigint(Some(event.epoch))?;
        record.bigint(Some(event.at))?;
        record.bigint(event.elapsed_us)?;
        record.text(event.message.as_deref())?;
        record.smallint(event.format)?;
        record.bytea(&event.payload)?;
        record.bigint(Some(*born))?;
        Ok(IsNull::No)
    }
}

struct Record<'a> {
    buffer: &'a mut PgArgumentBuffer,
}

impl<'a> Record<'a> {
    fn begin(buffer: &'a mut PgArgumentBuffer, fields: i32) -> Self {
        buffer.extend_from_slice(&fields.to_be_bytes());
        Self { buffer }
    }

    fn field(&mut self, number: u32, value: Option<&[u8]>) -> Result<(), BoxDynError> {
        let length = value.map_or(Ok(-1), |value| i32::try_from(value.len()))?;
        self.buffer.extend_from_slice(&number.to_be_bytes());
        self.buffer.extend_from_slice(&length.to_be_bytes());
        self.buffer.extend_from_slice(value.unwrap_or_default());
        Ok(())
    }

    fn text(&mut self, value: Option<&str>) -> Result<(), BoxDynError> {
        self.field(TEXT, value.map(str::as_bytes))
    }

    fn bytea(&mut self, value: &[u8]) -> Result<(), BoxDynError> {
        self.field(BYTEA, Some(value))
    }

    fn bigint(&mut self, value: Option<i64>) -> Result<(), BoxDynError> {
        self.field(BIGINT, value.map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice))
    }

    fn smallint(&mut self, value: i16) -> Result<(), BoxDynError> {
        self.field(SMALLINT, Some(&value.to_be_bytes()))
    }
}
