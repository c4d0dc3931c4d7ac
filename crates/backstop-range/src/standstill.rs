//! How long a saga stood still: the longest time between two consecutive events of its journal, less the
//! time in which one of its calls was out at a participant.
//!
//! Pure arithmetic over what the journal and the participants' record say.

use crate::call::Call;
use crate::journal::Event;
use crate::moment::Moment;
use std::collections::BTreeMap;

/// A span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its begin.
    pub from: Moment,
    /// Its end.
    pub until: Moment,
}

impl Span {
    pub(crate) fn overlap(self, other: Self) -> i64 {
        (self.until.min(other.until) - self.from.max(other.from)).max(0)
    }

    pub(crate) fn touches(self, other: Self) -> bool {
        self.from <= other.until && other.from <= self.until
    }
}

/// A time in which nothing happened to a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standstill {
    /// The saga.
    pub saga: String,
    /// Between these two events.
    pub span: Span,
    /// The events: `started to adopted`.
    pub between: String,
    /// How long nobody did anything, in microseconds.
    pub idle: i64,
}

/// The longest of all sagas.
#[derive(Debug, Clone, Default)]
pub struct Longest {
    /// While everything that the saga needed was up.
    pub normal: Option<Standstill>,
    /// While something that it needed was not, for a part of the time at least.
    pub in_outage: Option<Standstill>,
}

/// Every standstill of at least so many microseconds, in no order.
#[must_use]
pub fn at_least(min: i64, journals: &BTreeMap<String, Vec<Event>>, calls: &[Call]) -> Vec<Standstill> {
    let mut out = BTreeMap::<&str, Vec<Span>>::new();
    for call in calls {
        let span = Span { from: call.arrived, until: call.left.unwrap_or(Moment::MAX) };
        out.entry(&call.saga).or_default().push(span);
    }
    let mut found = Vec::new();
    for (saga, events) in journals {
        let busy = merged(out.remove(saga.as_str()).unwrap_or_default());
        let mut waits_for_a_person = false;
        for pair in events.windows(2) {
            let [before, after] = pair else { continue };
            // A person takes the time that a person takes.
            waits_for_a_person |= before.kind == "intervention_opened";
            if waits_for_a_person {
                waits_for_a_person = !matches!(after.kind.as_str(), "adopted" | "branch_retried");
                continue;
            }
            let span = Span { from: before.at, until: after.at };
            let idle = span.until - span.from - busy.iter().map(|busy| busy.overlap(span)).sum::<i64>();
            if idle >= min {
                let between = format!("{} to {}", before.kind, after.kind);
                found.push(Standstill { saga: saga.clone(), span, between, idle });
            }
        }
    }
    found
}

/// The longest of these, by whether an outage explains it.
#[must_use]
pub fn longest(found: &[Standstill], in_outage: impl Fn(&Standstill) -> bool) -> Longest {
    let mut longest = Longest::default();
    for standstill in found {
        let place = if in_outage(standstill) { &mut longest.in_outage } else { &mut longest.normal };
        if place.as_ref().is_none_or(|so_far| so_far.idle < standstill.idle) {
            *place = Some(standstill.clone());
        }
    }
    longest
}

/// Time in which a saga's calls were out, within a span.
#[must_use]
pub fn time_out<'a>(calls: impl Iterator<Item = &'a Call>, within: Span) -> i64 {
    let spans = calls.map(|call| Span { from: call.arrived, until: call.left.unwrap_or(Moment::MAX) });
    merged(spans.collect()).iter().map(|span| span.overlap(within)).sum()
}

/// The same time in spans that do not overlap.
fn merged(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| span.from);
    let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.from <= last.until => last.until = last.until.max(span.until),
            Some(_) | None => merged.push(span),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::tests::call;

    fn events(times: &[Moment]) -> BTreeMap<String, Vec<Event>> {
        let events = times.iter().map(|&at| Event { kind: "x".to_owned(), at }).collect();
        BTreeMap::from([("s".to_owned(), events)])
    }

    #[test]
    fn time_at_a_participant_does_not_count_and_is_not_counted_twice() {
        let mut one = call("s", 1);
        (one.arrived, one.left) = (100, Some(400));
        let mut two = one.clone();
        (two.arrived, two.left) = (300, Some(500));
        let found = at_least(1, &events(&[0, 1_000]), &[one, two]);
        assert_eq!(found.iter().map(|found| found.idle).collect::<Vec<_>>(), [600]);
    }

    #[test]
    fn what_overlaps_an_outage_is_told_apart() {
        let outage = Span { from: 950, until: 1_050 };
        let all = at_least(1, &events(&[0, 100, 1_000]), &[]);
        let found = longest(&all, |standstill| standstill.span.touches(outage));
        assert_eq!(found.normal.unwrap().idle, 100);
        assert_eq!(found.in_outage.unwrap().idle, 900);
    }

    #[test]
    fn what_waits_for_a_person_does_not_stand_still() {
        let kinds =
            ["started", "intervention_opened", "released", "adopted", "branch_retried", "rolled_back"];
        let events = kinds.iter().zip([0, 10, 20, 5_000, 5_010, 5_110]);
        let events = events.map(|(kind, at)| Event { kind: (*kind).to_owned(), at }).collect();
        let found = at_least(1, &BTreeMap::from([("s".to_owned(), events)]), &[]);
        assert_eq!(found.iter().map(|found| found.idle).collect::<Vec<_>>(), [10, 10, 100]);
    }
}
