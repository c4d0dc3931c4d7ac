//! I12: what must be true of money once all is quiet, over many sagas and all nodes.

use crate::{Invariant, Violation, must};

/// The books of one account, or of all accounts of one kind on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Money {
    /// Whose.
    pub name: String,
    /// In the smallest unit.
    pub balance: i128,
    /// Reserved and not yet settled.
    pub pending: i128,
    /// What has come in from other nodes, less what has gone out to them.
    pub net_flow: i128,
}

/// Checks that no money was made or lost between two times at which all was quiet.
///
/// # Errors
/// [`Invariant::I12`], with the sums.
pub fn money(before: &[Money], after: &[Money]) -> Result<(), Violation> {
    let sum = |books: &[Money]| books.iter().map(|m| m.balance).sum::<i128>();
    let (was, is) = (sum(before), sum(after));
    must(was == is, Invariant::I12, || format!("the sum over all accounts was {was} and is {is}"))?;
    if let Some(m) = after.iter().find(|m| m.pending < 0) {
        return Err(Violation::of(Invariant::I12, format!("pending of {} is {}", m.name, m.pending)));
    }
    let flow: i128 = after.iter().map(|m| m.net_flow).sum();
    must(flow == 0, Invariant::I12, || format!("the net flow between nodes is {flow}, not 0"))
}
