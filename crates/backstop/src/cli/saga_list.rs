//! `backstop saga list`: sagas by what their head rows tell, once or again and again.
//!
//! Invariant: what a row cannot tell has no column: a list has neither causes nor traces (`saga show`).

use super::connect::{Connection, pages};
use super::error::CliError;
use super::out::Paint;
use super::saga::parse_label;
use super::text::{Cell, between, columns, duration, parse_duration, time};
use super::view::head::{state_name, state_style};
use super::view::{micros, now};
use super::{Exit, Session};
use backstop_proto::v1::{self, Saga, SagaState};
use std::time::Duration;

/// Lists that could not be had in a row, after which watching gives up.
const FAILURES_MAX: u32 = 10;

/// `saga list`.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Only sagas in this state; may be given several times
    #[arg(long = "state", value_name = "STATE", ignore_case = true)]
    states: Vec<StateName>,
    /// Only sagas of this definition
    #[arg(long, value_name = "NAME")]
    definition: Option<String>,
    /// Only sagas whose cause has this code
    #[arg(long, value_name = "FIN-nnnnn")]
    fin_code: Option<String>,
    /// Only sagas with this label; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// More terms, as ListSagas takes them: 'create_time >= "2026-11-23T00:00:00Z"'
    #[arg(long, value_name = "TERMS")]
    filter: Option<String>,
    /// Only sagas accepted since then: so long ago (1h, 2d), or an instant (2026-11-23T00:00:00Z)
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    since: Option<When>,
    /// Only sagas accepted before then: so long ago, or an instant
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    until: Option<When>,
    /// Most sagas to show; 0 means all
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// What to show: id, definition, state, fin-code, started, age, ended, took, changed, owner, labels,
    /// label.KEY
    ///
    /// `age` is the time since it was accepted, `took` that from then to its end, `changed` the time since its
    /// last event.
    #[arg(
        long,
        value_name = "COLUMNS",
        value_delimiter = ',',
        value_parser = parse_column,
        default_value = "id,definition,state,fin-code,age,took"
    )]
    columns: Vec<Column>,
    /// Show it again and again until Ctrl-C; on a terminal, in place
    #[arg(long, value_name = "EVERY", num_args = 0..=1, default_missing_value = "2s", value_parser = parse_every)]
    watch: Option<Duration>,
    /// With --watch, end after so many times
    #[arg(long, value_name = "N", requires = "watch", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
}

/// A column of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Column {
    Id,
    Definition,
    State,
    FinCode,
    Started,
    Age,
    Ended,
    Took,
    Changed,
    Owner,
    Labels,
    /// The value of one label.
    Label(String),
}

fn parse_column(text: &str) -> Result<Column, String> {
    Ok(match text {
        "id" => Column::Id,
        "definition" => Column::Definition,
        "state" => Column::State,
        "fin-code" => Column::FinCode,
        "started" => Column::Started,
        "age" => Column::Age,
        "ended" => Column::Ended,
        "took" => Column::Took,
        "changed" => Column::Changed,
        "owner" => Column::Owner,
        "labels" => Column::Labels,
        other => match other.strip_prefix("label.") {
            Some(key) if !key.is_empty() => Column::Label(key.to_owned()),
            Some(_) | None => {
                return Err(
                    "there are id, definition, state, fin-code, started, age, ended, took, changed, \
                            owner, labels and label.KEY"
                        .to_owned(),
                );
            }
        },
    })
}

/// An instant, as a user gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// So long before now.
    Ago(Duration),
    /// Then.
    At(jiff::Timestamp),
}

impl When {
    /// As the filter language has it; what lies before the calendar begins with it.
    fn instant(self, now: jiff::Timestamp) -> jiff::Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(jiff::Timestamp::MIN),
        }
    }
}

fn parse_when(text: &str) -> Result<When, String> {
    if let Ok(at) = text.parse() {
        return Ok(When::At(at));
    }
    // Days are of 24 hours here: what is asked for is how long ago.
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok());
    let ago = match days {
        Some(days) => Some(Duration::from_secs(days.saturating_mul(86_400))),
        None => parse_duration(text).ok(),
    };
    ago.map(When::Ago).ok_or_else(|| {
        "say how long ago, such as 30m, 12h or 2d, or an instant such as 2026-11-23T00:00:00Z".to_owned()
    })
}

/// Shortest time between two looks.
const EVERY_MIN: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 100 });

fn parse_every(text: &str) -> Result<Duration, String> {
    let every = parse_duration(text)?;
    if every < EVERY_MIN {
        Err(format!("not more often than every {}", duration(EVERY_MIN)))
    } else {
        Ok(every)
    }
}

/// A saga's state on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StateName {
    /// Going forward
    #[value(alias = "RUNNING")]
    Running,
    /// Every step is done
    #[value(alias = "SUCCEEDED")]
    Succeeded,
    /// Going back
    #[value(alias = "ROLLING_BACK")]
    RollingBack,
    /// Every effect is undone
    #[value(alias = "ROLLED_BACK")]
    RolledBack,
    /// A person decides
    #[value(alias = "NEEDS_INTERVENTION")]
    NeedsIntervention,
}

impl StateName {
    pub(super) fn state(self) -> SagaState {
        match self {
            Self::Running => SagaState::Running,
            Self::Succeeded => SagaState::Succeeded,
            Self::RollingBack => SagaState::RollingBack,
            Self::RolledBack => SagaState::RolledBack,
            Self::NeedsIntervention => SagaState::NeedsIntervention,
        }
    }
}

impl List {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<Exit, CliError> {
        let connection = session.open().await?;
        let Some(every) = self.watch else {
            let page = self.page(&connection).await?;
            self.show(session, &page)?;
            return Ok(Exit::Done);
        };
        let interrupted = async {
            if tokio::signal::ctrl_c().await.is_err() {
                // Without the signal there is no clean end to be had: the default one stays in force.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = interrupted => {}
            shown = self.again_and_again(session, &connection, every) => return shown.map(|()| Exit::Done),
        }
        if session.terminal.screen().is_terminal {
            // The shell's prompt does not belong behind the ^C.
            session.terminal.print("")?;
        }
        Ok(Exit::Done)
    }

    async fn again_and_again(
        &self,
        session: &mut Session<'_>,
        connection: &Connection,
        every: Duration,
    ) -> Result<(), CliError> {
        let mut shown = 0;
        let mut failures = 0;
        loop {
            match self.page(connection).await {
                Ok(page) => {
                    failures = 0;
                    self.redraw(session, &page, shown > 0, every)?;
                }
                // A coordinator that restarts is no reason to stop looking; a first look that fails is.
                Err(error) if shown == 0 || failures >= FAILURES_MAX => return Err(error),
                Err(error) => {
                    failures += 1;
                    session.terminal.note(&format!("note: {error}; trying again"))?;
                }
            }
            shown += 1;
            if self.count.is_some_and(|count| shown >= count) {
                return Ok(());
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Shows a list again: on a terminal in place of the one before, within the window.
    fn redraw(
        &self,
        session: &mut Session<'_>,
        page: &v1::ListSagasResponse,
        is_again: bool,
        every: Duration,
    ) -> Result<(), CliError> {
        let screen = session.terminal.screen();
        if session.connect.json || !screen.is_terminal {
            if is_again && !session.connect.json {
                session.terminal.print("")?;
            }
            return self.show(session, page);
        }
        let time = jiff::Timestamp::now().strftime("%H:%M:%SZ");
        let title = format!("{time}, every {}; Ctrl-C ends", duration(every));
        let table = list_table(&page.sagas, &self.columns, now(), session.terminal.paint);
        let text =
            format!("{title}\n\n{table}{}", self.more(page).map(|more| more + "\n").unwrap_or_default());
        session.terminal.draw(&in_place(&text, screen.height))?;
        Ok(())
    }

    fn show(&self, session: &mut Session<'_>, page: &v1::ListSagasResponse) -> Result<(), CliError> {
        session.show("backstop.v1.ListSagasResponse", page, |paint| {
            list_table(&page.sagas, &self.columns, now(), paint)
        })?;
        if let Some(more) = self.more(page) {
            session.terminal.note(&more)?;
        }
        Ok(())
    }

    fn more(&self, page: &v1::ListSagasResponse) -> Option<String> {
        (!page.next_page_token.is_empty()).then(|| {
            format!(
                "note: there are more; only the newest {} are shown (--limit 0 shows all)",
                page.sagas.len()
            )
        })
    }

    async fn page(&self, connection: &Connection) -> Result<v1::ListSagasResponse, CliError> {
        let filter = &self.terms(jiff::Timestamp::now());
        let limit = (self.limit > 0).then_some(self.limit);
        let (sagas, next_page_token) = pages(limit, |page_size, page_token| async move {
            let request = v1::ListSagasRequest { page_size, page_token, filter: filter.clone() };
            let answer = connection.call(connection.sagas().list_sagas(request)).await?;
            Ok((answer.sagas, answer.next_page_token))
        })
        .await?;
        Ok(v1::ListSagasResponse { sagas, next_page_token })
    }

    /// The flags as one filter of `ListSagas`.
    fn terms(&self, now: jiff::Timestamp) -> String {
        let mut terms = Vec::new();
        let states: Vec<String> =
            self.states.iter().map(|state| format!("state = \"{}\"", state_name(state.state()))).collect();
        match states.as_slice() {
            [] => {}
            [one] => terms.push(one.clone()),
            several => terms.push(format!("({})", several.join(" OR "))),
        }
        terms.extend(self.definition.iter().map(|name| format!("definition = {}", quoted(name))));
        terms.extend(self.fin_code.iter().map(|code| format!("fin_code = {}", quoted(code))));
        terms.extend(self.labels.iter().map(|(key, value)| format!("labels.{} = {}", key, quoted(value))));
        terms.extend(self.since.map(|since| format!("create_time >= \"{}\"", since.instant(now))));
        terms.extend(self.until.map(|until| format!("create_time < \"{}\"", until.instant(now))));
        terms.extend(self.filter.iter().filter(|raw| !raw.trim().is_empty()).cloned());
        terms.join(" AND ")
    }
}

pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A text over what is on the terminal, line by line so that nothing flickers, and no longer than the window.
fn in_place(text: &str, height: usize) -> String {
    const HOME: &str = "\u{1b}[H";
    const REST_OF_LINE: &str = "\u{1b}[K";
    const REST_OF_SCREEN: &str = "\u{1b}[J";
    let all = text.lines().count();
    let fits = height.saturating_sub(1).max(3);
    let shown = if all > fits { fits - 1 } else { all };
    let mut out = HOME.to_owned();
    for line in text.lines().take(shown) {
        out += &format!("{line}{REST_OF_LINE}\n");
    }
    if all > shown {
        out += &format!("… {} more lines than the window has{REST_OF_LINE}\n", all - shown);
    }
    out + REST_OF_SCREEN
}

/// Sagas under headings.
fn list_table(sagas: &[Saga], wanted: &[Column], now: i64, paint: Paint) -> String {
    let headings: Vec<String> = wanted.iter().map(heading).collect();
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let rows =
        sagas.iter().map(|saga| wanted.iter().map(|column| cell(saga, column, now)).collect()).collect();
    columns(&headings, rows, paint)
}

fn heading(column: &Column) -> String {
    match column {
        Column::Id => "SAGA".to_owned(),
        Column::Definition => "DEFINITION".to_owned(),
        Column::State => "STATE".to_owned(),
        Column::FinCode => "FIN CODE".to_owned(),
        Column::Started => "STARTED".to_owned(),
        Column::Age => "AGE".to_owned(),
        Column::Ended => "ENDED".to_owned(),
        Column::Took => "TOOK".to_owned(),
        Column::Changed => "CHANGED".to_owned(),
        Column::Owner => "OWNER".to_owned(),
        Column::Labels => "LABELS".to_owned(),
        Column::Label(key) => key.to_uppercase(),
    }
}

fn cell(saga: &Saga, column: &Column, now: i64) -> Cell {
    let ago = |at: Option<&prost_types::Timestamp>| {
        let gap = at.and_then(|at| u64::try_from(now.saturating_sub(micros(at))).ok());
        Cell::from(gap.map(|gap| duration(Duration::from_micros(gap))).unwrap_or_default())
    };
    match column {
        Column::Id => Cell::from(saga.id.as_str()),
        Column::Definition => Cell::from(format!("{}@{}", saga.definition, saga.revision)),
        Column::State => Cell::styled(state_name(saga.state()), state_style(saga.state())),
        Column::FinCode => Cell::from(saga.fin_code.as_str()),
        Column::Started => Cell::from(time(saga.create_time.as_ref())),
        Column::Age => ago(saga.create_time.as_ref()),
        Column::Ended => Cell::from(time(saga.end_time.as_ref())),
        Column::Took => {
            let took = between(saga.create_time.as_ref(), saga.end_time.as_ref());
            Cell::from(took.map(duration).unwrap_or_default())
        }
        Column::Changed => ago(saga.update_time.as_ref()),
        Column::Owner => Cell::from(saga.owner.as_str()),
        Column::Labels => {
            let mut labels: Vec<String> =
                saga.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            labels.sort();
            Cell::from(labels.join(" "))
        }
        Column::Label(key) => Cell::from(saga.labels.get(key).map(String::as_str).unwrap_or_default()),
    }
}
