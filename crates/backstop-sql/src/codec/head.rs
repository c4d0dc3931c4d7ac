//! A head as a row of `saga`.

use super::{DecodeError, from_i64, text, to_i64};
use backstop_core::{
    CoordinatorId, DefinitionName, DefinitionRef, Epoch, FinCode, Revision, SagaId, SagaState, Seq, Timestamp,
};
use backstop_engine::ports::store::{Head, StoreError, StoreResult};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A row of `saga`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeadRow<'a> {
    pub(crate) id: Cow<'a, str>,
    pub(crate) definition: Cow<'a, str>,
    pub(crate) revision: i64,
    pub(crate) state: Cow<'a, str>,
    pub(crate) seq: i64,
    pub(crate) epoch: i64,
    pub(crate) owner: Option<Cow<'a, str>>,
    pub(crate) wake_at: Option<i64>,
    pub(crate) fin_code: Option<String>,
    pub(crate) labels: String,
    pub(crate) fingerprint: Cow<'a, [u8]>,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    pub(crate) ended_at: Option<i64>,
    /// Read only: no append writes it.
    pub(crate) quarantine: Option<Cow<'a, str>>,
    /// Read only, like `quarantine`.
    pub(crate) retired: bool,
}

/// Encodes a head.
///
/// # Errors
/// `NotApplied` if a number is too large to store.
pub(crate) fn encode(head: &Head) -> StoreResult<HeadRow<'_>> {
    Ok(HeadRow {
        id: Cow::Borrowed(head.saga.as_str()),
        definition: Cow::Borrowed(head.definition.name.as_str()),
        revision: i64::from(head.definition.revision.0),
        state: Cow::Borrowed(head.state.as_str()),
        seq: to_i64("seq", head.seq.0)?,
        epoch: to_i64("epoch", head.epoch.0)?,
        owner: head.owner.as_ref().map(|owner| Cow::Borrowed(owner.as_str())),
        wake_at: head.wake_at.map(|at| at.0),
        fin_code: head.fin_code.map(|code| code.to_string()),
        labels: labels_to_column(&head.labels)?,
        fingerprint: Cow::Borrowed(&head.fingerprint),
        created_at: head.created_at.0,
        updated_at: head.updated_at.0,
        ended_at: head.ended_at.map(|at| at.0),
        quarantine: head.quarantine.as_deref().map(text::to_column),
        retired: head.retired,
    })
}

/// Reads a row.
///
/// # Errors
/// [`StoreError::Unreadable`], naming the saga.
pub(crate) fn decode(row: HeadRow<'_>) -> StoreResult<Head> {
    decode_row(&row).map_err(|error| error.of(format!("the head of saga {}", row.id)))
}

fn decode_row(row: &HeadRow<'_>) -> Result<Head, DecodeError> {
    let name = DefinitionName::parse(&row.definition)
        .map_err(|_| DecodeError::unknown("definition", row.definition.as_ref()))?;
    let owner = row.owner.as_deref();
    let fin_code = row.fin_code.as_deref();
    Ok(Head {
        saga: saga_id(&row.id)?,
        definition: DefinitionRef { name, revision: Revision(from_i64("revision", row.revision)?) },
        state: SagaState::parse(&row.state)
            .ok_or_else(|| DecodeError::unknown("state", row.state.as_ref()))?,
        seq: Seq(from_i64("seq", row.seq)?),
        epoch: Epoch(from_i64("epoch", row.epoch)?),
        owner: owner
            .map(|id| CoordinatorId::parse(id).map_err(|_| DecodeError::unknown("owner", id)))
            .transpose()?,
        wake_at: row.wake_at.map(Timestamp),
        fin_code: fin_code
            .map(|code| FinCode::parse(code).ok_or_else(|| DecodeError::unknown("fin_code", code)))
            .transpose()?,
        labels: labels_from_column(&row.labels)?,
        fingerprint: fingerprint(&row.fingerprint)?,
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
        ended_at: row.ended_at.map(Timestamp),
        quarantine: row.quarantine.as_deref().map(|q| text::from_column("quarantine", q)).transpose()?,
        retired: row.retired,
    })
}

pub(crate) fn saga_id(text: &str) -> Result<SagaId, DecodeError> {
    SagaId::parse(text).map_err(|_| DecodeError::unknown("id", text))
}

pub(crate) fn fingerprint(bytes: &[u8]) -> Result<[u8; 32], DecodeError> {
    bytes
        .try_into()
        .map_err(|_| DecodeError::malformed("fingerprint", format!("{} bytes, not 32", bytes.len())))
}

/// Labels as a JSON object of strings; also the form of a filter.
pub(crate) fn labels_to_column(labels: &BTreeMap<String, String>) -> StoreResult<String> {
    let json = if labels.iter().all(|(key, value)| text::is_plain(key) && text::is_plain(value)) {
        serde_json::to_string(labels)
    } else {
        let escaped: BTreeMap<_, _> =
            labels.iter().map(|(key, value)| (text::to_column(key), text::to_column(value))).collect();
        serde_json::to_string(&escaped)
    };
    json.map_err(|error| StoreError::NotApplied(format!("labels: {error}")))
}

fn labels_from_column(column: &str) -> Result<BTreeMap<String, String>, DecodeError> {
    let escaped: BTreeMap<String, String> =
        serde_json::from_str(column).map_err(|error| DecodeError::malformed("labels", error))?;
    if escaped.iter().all(|(key, value)| text::is_plain(key) && text::is_plain(value)) {
        return Ok(escaped);
    }
    escaped
        .into_iter()
        .map(|(key, value)| Ok((text::from_column("labels", &key)?, text::from_column("labels", &value)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_any_text_come_back_as_they_were() {
        let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        for (labels, column) in [
            (labels(&[]), "{}"),
            (labels(&[("b", "ü \" \\"), ("a", "")]), r#"{"a":"","b":"ü \" \\"}"#),
            (labels(&[("a", "x"), ("b", "\0")]), r#"{"a":"x","b":"\u001a0"}"#),
            (labels(&[("\u{1a}0", "x")]), r#"{"\u001a10":"x"}"#),
        ] {
            assert_eq!(labels_to_column(&labels).unwrap(), column);
            assert_eq!(labels_from_column(column), Ok(labels));
        }
        assert!(labels_from_column(r#"{"a":"\u001a"}"#).is_err(), "a broken escape");
    }
}
