//! One look at all coordinators: who they are, then each asked what it has going on, all at once.
//!
//! Invariant: a coordinator that does not answer is shown as one that does not, within [`PATIENCE`]; it is no error
//! and keeps nobody else from being shown.

use crate::cli::connect::{ConnectArgs, Connection};
use crate::cli::error::CliError;
use backstop_proto::v1::{self, GetOverviewResponse};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long one coordinator is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was seen in one look.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    /// When, by the clock of whoever looks.
    pub(super) time: prost_types::Timestamp,
    /// In the order of their start.
    pub(super) coordinators: Vec<Seen>,
    /// What could not be seen.
    pub(super) note: String,
}

/// One coordinator.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) address: String,
    /// What it says, or why it says nothing.
    pub(super) overview: Result<GetOverviewResponse, String>,
}

/// Looks again and again, over connections that stay.
pub(super) struct Looker {
    first: Connection,
    args: ConnectArgs,
    others: BTreeMap<String, Connection>,
}

impl Looker {
    /// Connects to the server that was named.
    ///
    /// # Errors
    /// If it does not answer: nothing can be told then.
    pub(super) async fn new(args: &ConnectArgs) -> Result<Self, CliError> {
        let first = Connection::open(args).await?;
        let args = ConnectArgs { timeout: args.timeout.min(PATIENCE), ..args.clone() };
        Ok(Self { first, args, others: BTreeMap::new() })
    }

    /// Looks once.
    ///
    /// # Errors
    /// If the server that was named does not tell about itself.
    pub(super) async fn look(&mut self) -> Result<Sample, CliError> {
        let request = v1::GetOverviewRequest {};
        let own = self.first.call(self.first.operators().get_overview(request)).await?;
        let listed =
            self.first.call(self.first.operators().list_coordinators(v1::ListCoordinatorsRequest {})).await;
        let (mut rows, note) = match listed {
            Ok(answer) => (answer.coordinators, String::new()),
            Err(error) => {
                (Vec::new(), format!("the other coordinators cannot be listed: {}", error.in_brief()))
            }
        };
        if !rows.iter().any(|row| row.id == own.coordinator) {
            rows.push(v1::list_coordinators_response::Coordinator {
                id: own.coordinator.clone(),
                address: self.args.server.clone(),
                ..Default::default()
            });
        }
        let is_own = |id: &str| id == own.coordinator;
        let asked = rows.iter().filter(|row| !is_own(&row.id)).map(|row| {
            let known = self.others.remove(&row.address);
            self.ask(row.address.clone(), known)
        });
        // Collected first, since they borrow what is changed below.
        let asked: Vec<_> = asked.collect();
        let answers = futures::future::join_all(asked).await;
        let mut others = answers.into_iter();
        let mut kept = BTreeMap::new();
        let mut coordinators = Vec::with_capacity(rows.len());
        for row in rows {
            let overview = if is_own(&row.id) {
                Ok(own.clone())
            } else {
                match others.next() {
                    Some(Ok((connection, overview))) => {
                        kept.insert(row.address.clone(), connection);
                        Ok(overview)
                    }
                    Some(Err(_)) if row.expired => {
                        Err("does not answer, and its lease has run out".to_owned())
                    }
                    Some(Err(why)) => Err(why),
                    None => Err("was not asked".to_owned()),
                }
            };
            coordinators.push(Seen { id: row.id, address: row.address, overview });
        }
        self.others = kept;
        Ok(Sample { time: std::time::SystemTime::now().into(), coordinators, note })
    }

    /// Asks one of the others.
    fn ask(
        &self,
        address: String,
        known: Option<Connection>,
    ) -> impl Future<Output = Result<(Connection, GetOverviewResponse), String>> + use<> {
        let scheme = if self.args.server.starts_with("https://") { "https" } else { "http" };
        let args = ConnectArgs { server: format!("{scheme}://{address}"), ..self.args.clone() };
        async move {
            let connection = match known {
                Some(connection) => connection,
                None => Connection::open(&args).await.map_err(|error| error.in_brief())?,
            };
            let request = v1::GetOverviewRequest {};
            let answer = connection.call(connection.operators().get_overview(request)).await;
            answer.map(|overview| (connection, overview)).map_err(|error| error.in_brief())
        }
    }
}
