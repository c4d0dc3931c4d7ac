//! A saga as the verbs answer that change one: its head, the commands to go on with, its transcript.
//!
//! Not here: the whole picture (`view`, as `saga show` has it).

use super::out::{Paint, Screen};
use super::text::safe;
use super::view::{self, Canvas, Part, Story};
use backstop_proto::v1::{Saga, SagaState};

/// The head, what a person is asked to do if anything, and the transcript.
pub(super) fn head_and_transcript(saga: &Saga, paint: Paint) -> String {
    let story = Story { saga: saga.clone(), ..Story::default() };
    let canvas = Canvas::new(paint, Screen::of_stdout(), view::now());
    let mut out = view::show(&story, &[Part::Head], &canvas);
    if saga.state() == SagaState::NeedsIntervention {
        out.push('\n');
        out.push_str(&view::show(&story, &[Part::Next], &canvas));
    }
    if !saga.transcript.is_empty() {
        out.push('\n');
    }
    for line in &saga.transcript {
        out.push_str(&safe(line));
        out.push('\n');
    }
    out
}
