//! What a run is asked for: a seed, how many sagas, and which classes of faults.

use std::collections::BTreeSet;

/// A class of faults that can be left out, to find which are needed to make a seed fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Messages are slow, lost, doubled and late.
    Network,
    /// Ways are cut.
    Partitions,
    /// Coordinators crash.
    Crashes,
    /// Coordinators stand still for a while.
    Freezes,
    /// Coordinators hand over and go.
    Drains,
    /// The disk is slow, and the store is down.
    Disk,
    /// Nobody tells what became of a commit.
    Fates,
    /// Clocks run differently, and jump.
    Clocks,
    /// Participants refuse, fail, and are away.
    Participants,
    /// A participant never comes back.
    Deaths,
    /// Clients cancel.
    Cancels,
    /// Limits are narrow.
    Load,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Network,
        Self::Partitions,
        Self::Crashes,
        Self::Freezes,
        Self::Drains,
        Self::Disk,
        Self::Fates,
        Self::Clocks,
        Self::Participants,
        Self::Deaths,
        Self::Cancels,
        Self::Load,
    ];

    /// As the command line names it.
    #[must_use]
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// The inverse of [`Class::name`].
    ///
    /// # Errors
    /// The names that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|class| class.name() == text);
        found.ok_or_else(|| format!("one of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// One world to be lived through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// From which all follows.
    pub seed: u64,
    /// Sagas that clients want; `None`: as the seed has it.
    pub sagas: Option<u64>,
    /// Classes of faults that do not happen.
    pub without: BTreeSet<Class>,
}

impl Options {
    /// The world of a seed, with all its faults.
    #[must_use]
    pub fn seed(seed: u64) -> Self {
        Self { seed, sagas: None, without: BTreeSet::new() }
    }

    pub(crate) fn has(&self, class: Class) -> bool {
        !self.without.contains(&class)
    }

    /// The command that lives through this very world again.
    #[must_use]
    pub fn command(&self) -> String {
        let sagas = self.sagas.map(|sagas| format!(" --sagas {sagas}")).unwrap_or_default();
        let without: Vec<String> =
            self.without.iter().map(|class| format!(" --without {}", class.name())).collect();
        format!("cargo xtask sim --seed {}{sagas}{}", self.seed, without.concat())
    }
}
