//! A common axis of time over a row of columns, with long idle times cut out.
//!
//! Invariant: the axis never goes backwards (`later_is_never_further_left`).

/// Idle time that is shorter is never cut out, in microseconds.
const CUT_MIN: i64 = 10_000_000;
/// Idle time is cut out if it is so many times as long as all that remains.
const CUT_FACTOR: i64 = 3;
/// Columns of a cut.
const CUT_COLUMNS: usize = 3;

/// An axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Axis {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    from: i64,
    to: i64,
    column: usize,
    columns: usize,
    is_cut: bool,
}

impl Axis {
    /// An axis from one instant to another over so many columns, on which `busy` must be told apart.
    pub(super) fn new(from: i64, to: i64, busy: &[(i64, i64)], columns: usize) -> Self {
        let to = to.max(from.saturating_add(1));
        let idle = idle(from, to, busy);
        let cuts = cuts(to - from, &idle);
        let kept: i64 = (to - from) - cuts.iter().map(|(from, to)| to - from).sum::<i64>();
        let columns_kept = columns.saturating_sub(cuts.len() * CUT_COLUMNS).max(1);
        let mut pieces = Vec::new();
        let (mut at, mut column, mut done) = (from, 0, 0);
        for (cut_from, cut_to) in cuts.iter().copied().chain([(to, to)]) {
            done += cut_from - at;
            let end = scaled(done, kept, columns_kept)
                + pieces.iter().filter(|p: &&Piece| p.is_cut).count() * CUT_COLUMNS;
            pieces.push(Piece {
                from: at,
                to: cut_from,
                column,
                columns: end.saturating_sub(column),
                is_cut: false,
            });
            column = end;
            if cut_to > cut_from {
                pieces.push(Piece { from: cut_from, to: cut_to, column, columns: CUT_COLUMNS, is_cut: true });
                column += CUT_COLUMNS;
            }
            at = cut_to;
        }
        Self { pieces }
    }

    /// The column of an instant.
    pub(super) fn column(&self, at: i64) -> usize {
        let piece = self.pieces.iter().rev().find(|piece| at >= piece.from).or(self.pieces.first());
        let Some(piece) = piece else { return 0 };
        let into = at.clamp(piece.from, piece.to) - piece.from;
        piece.column + scaled(into, piece.to - piece.from, piece.columns)
    }

    /// The columns and the length of each cut.
    pub(super) fn cuts(&self) -> impl Iterator<Item = (std::ops::Range<usize>, i64)> {
        let cuts = self.pieces.iter().filter(|piece| piece.is_cut);
        cuts.map(|piece| (piece.column..piece.column + piece.columns, piece.to - piece.from))
    }
}

fn scaled(part: i64, whole: i64, columns: usize) -> usize {
    let columns = i128::try_from(columns).unwrap_or(0);
    let place = i128::from(part) * columns / i128::from(whole.max(1));
    usize::try_from(place).unwrap_or(0)
}

/// The times in which nothing goes on, in order.
fn idle(from: i64, to: i64, busy: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let mut busy: Vec<(i64, i64)> = busy.to_vec();
    busy.sort_unstable();
    let mut idle = Vec::new();
    let mut at = from;
    for (begins, ends) in busy.into_iter().chain([(to, to)]) {
        if begins > at {
            idle.push((at, begins.min(to)));
        }
        at = at.max(ends);
    }
    idle
}

/// Those of the idle times that would leave nothing to see of the rest, in order.
fn cuts(whole: i64, idle: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let mut longest: Vec<(i64, i64)> =
        idle.iter().copied().filter(|(from, to)| to - from >= CUT_MIN).collect();
    longest.sort_by_key(|(from, to)| from - to);
    // As many of the longest as together are far longer than what remains.
    let mut sum = 0;
    let mut take = 0;
    for (place, (from, to)) in longest.iter().enumerate() {
        sum += to - from;
        if to - from > (whole - sum) * CUT_FACTOR {
            take = place + 1;
        }
    }
    longest.truncate(take);
    longest.sort_unstable();
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_night_in_which_nothing_happened_is_cut_out() {
        let second = 1_000_000;
        let hour = 3_600 * second;
        let busy = [(0, second), (2 * hour, 2 * hour + second), (3 * hour, 3 * hour + second)];
        let axis = Axis::new(0, 3 * hour + second, &busy, 66);
        assert_eq!(axis.cuts().map(|(columns, _)| columns).collect::<Vec<_>>(), [20..23, 43..46]);
        assert_eq!((axis.column(0), axis.column(second), axis.column(2 * hour)), (0, 20, 23));
        assert_eq!(axis.column(3 * hour + second), 66);
    }

    #[test]
    fn waits_between_attempts_are_not_cut_out() {
        let axis = Axis::new(0, 154_000, &[(0, 2_000), (52_000, 54_000), (154_000, 154_000)], 40);
        assert_eq!(axis.cuts().count(), 0);
    }

    #[test]
    fn later_is_never_further_left() {
        let hour = 3_600_000_000;
        let busy = [(5, 9), (hour, hour + 7), (hour + 8, 9 * hour)];
        for to in [0, 1, 9 * hour, 100 * hour] {
            let axis = Axis::new(0, to, &busy, 50);
            let columns: Vec<usize> = (0..1_000).map(|part| axis.column(to / 1_000 * part)).collect();
            assert!(columns.is_sorted(), "{columns:?}");
            assert!(columns.iter().all(|column| *column <= 50), "{columns:?}");
        }
        assert_eq!(Axis::new(7, 7, &[], 0).column(7), 0);
    }
}
