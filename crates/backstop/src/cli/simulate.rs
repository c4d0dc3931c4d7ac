//! `backstop definition simulate`: every way in which a definition can run, as a table a person reads before it
//! runs in earnest.
//!
//! Not here: playing (`SimulateDefinition` does, in the server, by the rules of earnest).

use super::connect::Connection;
use super::error::CliError;
use super::out::{Paint, Style};
use super::text::{Cell, DefinitionRef, columns, parse_definition_ref, safe, short};
use super::view::diagram::Diagram;
use super::view::head::{state_name, state_style};
use super::view::sequence;
use super::{Session, file};
use backstop_proto::v1::simulate_definition_response::{Run, run::Fault};
use backstop_proto::v1::{self, Definition, SagaState, StepKind};
use std::fmt::Write;

/// `definition simulate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Simulate {
    /// A registered definition
    #[arg(value_name = "NAME[@REV]", value_parser = parse_definition_ref, required_unless_present = "file")]
    definition: Option<DefinitionRef>,
    /// A definition that need not be registered; - reads standard input
    #[arg(long, conflicts_with = "definition")]
    file: Option<String>,
    /// Only the runs in which this step fails
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
    /// Also print the journal of each run
    #[arg(long)]
    transcripts: bool,
    /// Print a Mermaid diagram instead: of the steps; with --step, of the calls of the run in which it fails
    #[arg(long, conflicts_with = "transcripts")]
    mermaid: bool,
    /// With --mermaid and --step: how the step fails
    #[arg(long, value_name = "HOW", requires = "step", default_value = "refused")]
    fault: FaultName,
}

/// How a step fails, on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FaultName {
    /// Its action is refused
    Refused,
    /// Its participant never answers
    NoAnswer,
    /// Its action fails internally
    Internal,
    /// A later step is refused, and so is this one's compensation
    CompensationRefused,
}

impl FaultName {
    fn wire(self) -> Fault {
        match self {
            Self::Refused => Fault::Refused,
            Self::NoAnswer => Fault::NoAnswer,
            Self::Internal => Fault::Internal,
            Self::CompensationRefused => Fault::CompensationRefused,
        }
    }
}

impl Simulate {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let (given, source) = match &self.file {
            None => (None, None),
            Some(path) => {
                let (name, text) = file::text_of(path)?;
                let (definition, source) = file::definition(&name, &text)?;
                (Some(definition), Some(source))
            }
        };
        let registered =
            self.definition.clone().unwrap_or(DefinitionRef { name: String::new(), revision: 0 });
        let connection = session.open().await?;
        let request = v1::SimulateDefinitionRequest {
            definition: given.clone(),
            name: registered.name.clone(),
            revision: registered.revision,
        };
        let result = connection.call(connection.definitions().simulate_definition(request)).await;
        let answer = result.map_err(|error| match source {
            Some(source) => error.about(source),
            None => error,
        })?;
        if session.connect.json {
            return session.show("backstop.v1.SimulateDefinitionResponse", &answer, |_| String::new());
        }
        let definition = match given {
            Some(definition) => definition,
            None => stored(&connection, registered).await?,
        };
        let screen = session.terminal.screen();
        // Where nobody looks, a run stays on one line, for those who search.
        let width = if screen.is_terminal { screen.width } else { usize::MAX };
        let text = self.text(&definition, &answer, width, session.terminal.paint)?;
        session.terminal.print(&text)?;
        Ok(())
    }

    fn text(
        &self,
        definition: &Definition,
        answer: &v1::SimulateDefinitionResponse,
        width: usize,
        paint: Paint,
    ) -> Result<String, CliError> {
        let runs: Vec<&Run> = match &self.step {
            None => answer.runs.iter().collect(),
            Some(step) => answer.runs.iter().filter(|run| run.step == *step).collect(),
        };
        if let (Some(step), true) = (&self.step, runs.is_empty()) {
            return Err(CliError::Unfit(format!("{} has no step {step}", definition.name)));
        }
        if !self.mermaid {
            return Ok(simulation(definition, &runs, self.transcripts, width, paint));
        }
        let Some(step) = &self.step else {
            return Ok(Diagram::of_definition(definition).mermaid());
        };
        let fault = self.fault.wire();
        let run = runs.iter().find(|run| run.fault() == fault).ok_or_else(|| {
            CliError::Unfit(format!("step {step} cannot fail that way ({})", fault_words(fault)))
        })?;
        let title = format!("{}: {step}, {}", definition.name, fault_words(fault));
        Ok(sequence::of_run(definition, &title, &run.calls, state_name(run.end_state())))
    }
}

/// The definition as it is stored: the answer to a simulation does not tell the kinds of its steps.
async fn stored(connection: &Connection, named: DefinitionRef) -> Result<Definition, CliError> {
    let request = v1::GetDefinitionRequest { name: named.name, revision: named.revision };
    let answer = connection.call(connection.definitions().get_definition(request)).await?;
    answer.definition.ok_or_else(|| CliError::Mapping("the answer has no definition".to_owned()))
}

/// The runs as a table, then what needs a person.
fn simulation(
    definition: &Definition,
    runs: &[&Run],
    transcripts: bool,
    width: usize,
    paint: Paint,
) -> String {
    let mut out = runs_table(runs, width, paint);
    if transcripts {
        for run in runs {
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(out, "\n{}", paint.apply(Style::Bold, &safe(&title(run))));
            for line in &run.transcript {
                let _ = writeln!(out, "  {}", safe(line));
            }
        }
    }
    let people: Vec<&&Run> =
        runs.iter().filter(|run| run.end_state() == SagaState::NeedsIntervention).collect();
    if people.is_empty() {
        let _ = writeln!(out, "\nNo failure point needs a person.");
        return out;
    }
    let _ = writeln!(out, "\n{} of {} runs need a person:", people.len(), runs.len());
    for run in people {
        let title = paint.apply(Style::Bad, &safe(&title(run)));
        let _ = writeln!(out, "  {title}\n    {}", why(definition, run));
    }
    out
}

/// A row a run; lists that would make it wider than the screen go on in rows below.
fn runs_table(runs: &[&Run], width: usize, paint: Paint) -> String {
    /// Narrower than this no list is made.
    const LIST_MIN: usize = 16;
    let mut headings = vec!["FAILS", "HOW", "ENDS", "CALLED", "UNDONE", "TOLD"];
    if runs.iter().all(|run| signalled(run).is_empty()) {
        headings.pop();
    }
    let lists = headings.len() - 3;
    let heads: Vec<[String; 3]> = runs
        .iter()
        .map(|run| {
            let step = if run.step.is_empty() { "nothing" } else { &run.step };
            [step.to_owned(), fault_words(run.fault()).to_owned(), state_name(run.end_state()).to_owned()]
        })
        .collect();
    let bodies: Vec<[String; 3]> = runs
        .iter()
        .map(|run| [in_order(run, &["action", "query"]), in_order(run, &["compensation"]), signalled(run)])
        .collect();
    let widest = |rows: &[[String; 3]], column: usize, heading: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([headings[heading].len()]).max().unwrap_or(0)
    };
    let fixed: usize = (0..3).map(|column| widest(&heads, column, column) + 2).sum();
    let natural: Vec<usize> = (0..lists).map(|column| widest(&bodies, column, column + 3) + 2).collect();
    let room = width.saturating_sub(fixed);
    let mut widths = natural.clone();
    if natural.iter().sum::<usize>() > room {
        for width in widths.iter_mut().skip(1) {
            *width = (*width).min((room / 4).max(LIST_MIN));
        }
        let rest: usize = widths.iter().skip(1).sum();
        widths[0] = widths[0].min(room.saturating_sub(rest).max(LIST_MIN));
    }
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for ((run, head), body) in runs.iter().zip(heads).zip(bodies) {
        let wrapped: Vec<Vec<String>> =
            body.iter().zip(&widths).map(|(list, width)| wrapped(list, width - 2)).collect();
        let height = wrapped.iter().map(Vec::len).max().unwrap_or(1);
        for line in 0..height {
            let mut row: Vec<Cell> = if line == 0 {
                let [step, fault, state] = head.clone();
                vec![step.into(), fault.into(), Cell::styled(state, state_style(run.end_state()))]
            } else {
                vec![" ".into(), " ".into(), " ".into()]
            };
            row.extend(wrapped.iter().map(|lines| match lines.get(line) {
                Some(text) => Cell::from(text.as_str()),
                None => Cell::from(" "),
            }));
            rows.push(row);
        }
    }
    let table = columns(&headings, rows, paint);
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// A list broken between its items, into lines of so many characters if an item has not more by itself.
fn wrapped(list: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for item in list.split_inclusive(", ") {
        match lines.last_mut() {
            Some(line)
                if line.is_empty() || line.chars().count() + item.trim_end().chars().count() <= width =>
            {
                line.push_str(item);
            }
            Some(_) | None => lines.push(item.to_owned()),
        }
    }
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

fn title(run: &Run) -> String {
    match (run.step.as_str(), fault_words(run.fault())) {
        ("", _) => "nothing fails".to_owned(),
        (step, fault) => format!("{step}: {fault}"),
    }
}

fn fault_words(fault: Fault) -> &'static str {
    match fault {
        Fault::Unspecified => "",
        Fault::Refused => "refused",
        Fault::NoAnswer => "no answer",
        Fault::Internal => "internal error",
        Fault::CompensationRefused => "undo refused",
    }
}

/// The calls of some phases in their order, attempts in a row counted: `hold, debit x5, ask credit`.
fn in_order(run: &Run, phases: &[&str]) -> String {
    let mut steps: Vec<(String, usize)> = Vec::new();
    for call in &run.calls {
        let Some((step, rest)) = call.split_once('/') else { continue };
        let phase = rest.split_whitespace().next().unwrap_or_default();
        if !phases.contains(&phase) {
            continue;
        }
        let name = if phase == "query" { format!("ask {step}") } else { step.to_owned() };
        match steps.last_mut() {
            Some((last, count)) if *last == name => *count += 1,
            Some(_) | None => steps.push((name, 1)),
        }
    }
    let steps: Vec<String> = steps
        .into_iter()
        .map(|(name, count)| if count == 1 { name } else { format!("{name} x{count}") })
        .collect();
    steps.join(", ")
}

/// Whom a rollback is told to: the lines of the journal say so.
fn signalled(run: &Run) -> String {
    let told = run.transcript.iter().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let name = words.next()?;
        (words.next()? == "signalled").then(|| name.to_owned())
    });
    told.collect::<Vec<_>>().join(", ")
}

fn is_sent_again(run: &Run) -> bool {
    run.calls.iter().any(|call| *call == format!("{}/action #2", run.step))
}

/// Why a run ends at a person, and what in the definition would change that.
fn why(definition: &Definition, run: &Run) -> String {
    let step = definition.steps.iter().find(|step| step.name == run.step);
    let kind = step.map(v1::Step::kind).unwrap_or_default();
    match (run.fault(), kind) {
        (Fault::CompensationRefused, _) => {
            "its effect stands and its compensation is refused: only a person can undo it".to_owned()
        }
        (Fault::NoAnswer | Fault::Internal, StepKind::Pivot) if is_sent_again(run) => {
            "nobody knows whether the pivot took effect, though it was sent again: neither way is safe".to_owned()
        }
        (Fault::NoAnswer | Fault::Internal, StepKind::Pivot) => {
            "nobody knows whether the pivot took effect, so that neither way is safe; a query, or a participant \
             that deduplicates by key, would settle it"
                .to_owned()
        }
        (_, StepKind::Retriable) => {
            "it comes after the pivot, so that there is no way back, and it is refused for good".to_owned()
        }
        (fault, kind) => format!(
            "{} of a {} step leaves what the machine cannot settle",
            fault_words(fault),
            match kind {
                StepKind::Unspecified => "COMPENSATABLE",
                other => short(other.as_str_name(), "STEP_KIND_"),
            }
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_a_person_has_a_reason_of_its_own() {
        let step = |name: &str, kind: StepKind| v1::Step {
            name: name.to_owned(),
            kind: kind.into(),
            ..v1::Step::default()
        };
        let steps = vec![step("settle", StepKind::Pivot), step("record", StepKind::Retriable)];
        let definition = Definition { steps, ..Definition::default() };
        let run = |step: &str, fault: Fault, calls: &[&str]| Run {
            step: step.to_owned(),
            fault: fault.into(),
            calls: calls.iter().map(|call| (*call).to_owned()).collect(),
            ..Run::default()
        };
        let once = ["settle/action"];
        let again = ["settle/action", "settle/action #2"];
        for (run, expected) in [
            (run("settle", Fault::NoAnswer, &once), "would settle it"),
            (run("settle", Fault::Internal, &again), "though it was sent again"),
            (run("record", Fault::Refused, &["record/action"]), "it comes after the pivot"),
            (run("settle", Fault::CompensationRefused, &[]), "its effect stands"),
        ] {
            assert!(why(&definition, &run).contains(expected), "{run:?}: {}", why(&definition, &run));
        }
    }

    #[test]
    fn lists_that_are_too_wide_go_on_below() {
        let calls =
            ["one/action", "two/action", "two/action #2", "three/query", "four/action", "two/compensation"];
        let transcript = ["0007 a_listener signalled      #1", "0008 other signalled      #1"];
        let run = Run {
            step: "four".to_owned(),
            fault: Fault::NoAnswer.into(),
            end_state: SagaState::RolledBack.into(),
            calls: calls.map(str::to_owned).to_vec(),
            transcript: transcript.map(str::to_owned).to_vec(),
        };
        insta::assert_snapshot!(runs_table(&[&run], 70, Paint::OFF), @r#"
FAILS  HOW        ENDS         CALLED        UNDONE  TOLD
four   no answer  ROLLED_BACK  one, two x2,  two     a_listener,
                               ask three,            other
                               four
"#);
        insta::assert_snapshot!(runs_table(&[&run], usize::MAX, Paint::OFF), @r#"
FAILS  HOW        ENDS         CALLED                        UNDONE  TOLD
four   no answer  ROLLED_BACK  one, two x2, ask three, four  two     a_listener, other
"#);
    }
}
