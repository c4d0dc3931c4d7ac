//! How much may go wrong in one run.

use crate::books::Said;

/// Everything that an action may answer besides what is good.
pub const ACTIONS: &[Said] =
    &[Said::Refused, Said::Aborted, Said::InternalDone, Said::UnavailableDone, Said::NotSent];
/// One of each consequence: refused, in doubt and done, tried again without doubt.
pub(crate) const ACTIONS_FEW: &[Said] = &[Said::Refused, Said::NotSent];
pub(crate) const ACTIONS_FEWEST: &[Said] = &[Said::Refused];

/// What may go wrong, and how often; counted down as it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Answers that are not plainly good, and answers that do not come.
    pub faults: u32,
    /// Coordinators that die.
    pub crashes: u32,
    /// Take-overs from a coordinator that is alive and does not know yet.
    pub takeovers: u32,
    /// Coordinators that freeze between what they have on disk and the calls that follow from it.
    pub freezes: u32,
    /// Commits of unknown fate.
    pub unknowns: u32,
    /// Messages that arrive twice.
    pub doubles: u32,
    /// Coordinators that hand over in order.
    pub hand_overs: u32,
    /// Requests to cancel.
    pub cancels: u32,
    /// Words of an operator.
    pub operators: u32,
    /// What an action may answer.
    pub actions: &'static [Said],
    /// What a compensation may answer.
    pub compensations: &'static [Said],
    /// The bound of plain participants is lifted: messages to them arrive however late.
    pub plain_late: bool,
}

impl Bounds {
    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        faults: 0,
        crashes: 0,
        takeovers: 0,
        freezes: 0,
        unknowns: 0,
        doubles: 0,
        hand_overs: 0,
        cancels: 0,
        operators: 0,
        actions: ACTIONS_FEWEST,
        compensations: &[],
        plain_late: false,
    };

    /// In a line, without what is nought.
    #[must_use]
    pub fn short(&self) -> String {
        let counted = [
            ("faults", self.faults),
            ("crashes", self.crashes),
            ("takeovers", self.takeovers),
            ("freezes", self.freezes),
            ("unknown", self.unknowns),
            ("doubles", self.doubles),
            ("handovers", self.hand_overs),
            ("cancels", self.cancels),
            ("words", self.operators),
        ];
        let said = counted.into_iter().filter(|(_, count)| *count > 0);
        said.map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
    }
}
