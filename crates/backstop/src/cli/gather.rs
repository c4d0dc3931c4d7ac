//! Many sagas at once: a list of heads, then each saga whole, a bounded number of them at a time.
//!
//! Invariants: never more than [`AT_ONCE`] questions are open; what comes out has the order of what went in.
//!
//! Not here: what is done with them (`intervention`, `batch`).

use super::connect::{Connection, pages};
use super::error::CliError;
use backstop_proto::v1::{self, Saga};
use futures::stream::{self, StreamExt, TryStreamExt};

/// Sagas asked for at once.
const AT_ONCE: usize = 8;

/// Heads of the sagas that fit the filter, newest first; true if there are more than `limit`.
pub(super) async fn heads(
    connection: &Connection,
    filter: &str,
    limit: usize,
) -> Result<(Vec<Saga>, bool), CliError> {
    let (sagas, next) = pages(Some(limit), |page_size, page_token| async move {
        let request = v1::ListSagasRequest { page_size, page_token, filter: filter.to_owned() };
        let answer = connection.call(connection.sagas().list_sagas(request)).await?;
        Ok((answer.sagas, answer.next_page_token))
    })
    .await?;
    Ok((sagas, !next.is_empty()))
}

/// The sagas with their branches. One that is gone by now is left out.
pub(super) async fn whole(connection: &Connection, heads: &[Saga]) -> Result<Vec<Saga>, CliError> {
    let asked = heads.iter().map(|head| {
        let request = v1::GetSagaRequest { saga_id: head.id.clone(), view: v1::SagaView::Basic.into() };
        async move {
            match connection.call(connection.sagas().get_saga(request)).await {
                Ok(answer) => Ok(answer.saga),
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error),
            }
        }
    });
    // Collected first: a stream that borrows from its closure is not general enough for a spawned task.
    let asked: Vec<_> = asked.collect();
    let found: Vec<Option<Saga>> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}
