//! Reads typed settings out of layers of text, and remembers every fault instead of stopping at the first.

use config::{Config, Value, ValueKind};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// Largest count: queues and permits have room for it.
const COUNT_MAX: i64 = u32::MAX as i64;
/// Longest duration: instants have room for it, and for the sums of a few.
const DURATION_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3_600);

/// Settings that are being read.
pub(super) struct Reader {
    config: Config,
    faults: Vec<String>,
}

impl Reader {
    pub(super) fn new(config: Config) -> Self {
        Self { config, faults: Vec::new() }
    }

    pub(super) fn fault(&mut self, key: &str, what: impl Display) {
        self.faults.push(format!("{key}: {what}"));
    }

    /// Every fault found, or nothing.
    pub(super) fn finish(self) -> Result<(), Vec<String>> {
        if self.faults.is_empty() { Ok(()) } else { Err(self.faults) }
    }

    pub(super) fn text(&mut self, key: &str) -> String {
        match self.config.get_string(key) {
            Ok(text) => text,
            Err(error) => {
                self.fault(key, error);
                String::new()
            }
        }
    }

    pub(super) fn flag(&mut self, key: &str) -> bool {
        match self.config.get_bool(key) {
            Ok(flag) => flag,
            Err(error) => {
                self.fault(key, error);
                false
            }
        }
    }

    /// A whole number of at least 1.
    pub(super) fn count<T: TryFrom<i64> + Default>(&mut self, key: &str) -> T {
        match self.config.get_int(key) {
            Ok(number) if number >= 1 => {
                T::try_from(number).ok().filter(|_| number <= COUNT_MAX).unwrap_or_else(|| {
                    self.fault(key, format!("{number} is too large; the limit is {COUNT_MAX}"));
                    T::default()
                })
            }
            Ok(number) => {
                self.fault(key, format!("must be at least 1, not {number}"));
                T::default()
            }
            Err(error) => {
                self.fault(key, error);
                T::default()
            }
        }
    }

    /// A whole number within these bounds.
    pub(super) fn count_within<T>(&mut self, key: &str, bounds: RangeInclusive<T>) -> T
    where
        T: TryFrom<i64> + Default + PartialOrd + Display,
    {
        match self.config.get_int(key) {
            Ok(number) => {
                T::try_from(number).ok().filter(|count| bounds.contains(count)).unwrap_or_else(|| {
                    self.fault(
                        key,
                        format!("must be from {} to {}, not {number}", bounds.start(), bounds.end()),
                    );
                    T::default()
                })
            }
            Err(error) => {
                self.fault(key, error);
                T::default()
            }
        }
    }

    /// A number from 0 to 1.
    pub(super) fn share(&mut self, key: &str) -> f64 {
        match self.config.get_float(key) {
            Ok(share) if (0.0..=1.0).contains(&share) => share,
            Ok(share) => {
                self.fault(key, format!("must be from 0 to 1, not {share}"));
                0.0
            }
            Err(error) => {
                self.fault(key, error);
                0.0
            }
        }
    }

    /// A duration of more than zero.
    pub(super) fn duration(&mut self, key: &str) -> Duration {
        let text = self.text(key);
        match parse_duration(&text) {
            Some(duration) if duration > DURATION_MAX => {
                self.fault(key, format!("\"{text}\" is longer than {} h", DURATION_MAX.as_secs() / 3_600));
                Duration::ZERO
            }
            Some(duration) if !duration.is_zero() => duration,
            Some(_) | None => {
                self.fault(
                    key,
                    format!("\"{text}\" is no duration of more than zero, like \"500ms\" or \"2s\""),
                );
                Duration::ZERO
            }
        }
    }

    /// A duration of which zero means never.
    pub(super) fn duration_or_never(&mut self, key: &str) -> Duration {
        match parse_duration(&self.text(key)) {
            Some(duration) if duration.is_zero() => duration,
            Some(_) | None => self.duration(key),
        }
    }

    pub(super) fn parsed<T: FromStr>(&mut self, key: &str, what: &str) -> Option<T> {
        let text = self.text(key);
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.fault(key, format!("\"{text}\" is not {what}"));
        }
        parsed
    }

    /// Names every key that the defaults do not have: a typing error must not mean the default.
    pub(super) fn refuse_unknown(&mut self, known: &Config, open_table: &str) {
        let known: BTreeSet<String> = paths(&known.cache).into_iter().collect();
        for path in paths(&self.config.cache) {
            let open = path.strip_prefix(open_table).is_some_and(|rest| rest.starts_with('.'));
            if !known.contains(&path) && !open {
                self.fault(&path, "there is no such setting");
            }
        }
    }

    pub(super) fn table(&self, key: &str) -> Vec<(String, Value)> {
        let mut table: Vec<_> = self.config.get_table(key).unwrap_or_default().into_iter().collect();
        table.sort_by(|a, b| a.0.cmp(&b.0));
        table
    }
}

/// Like `500ms`, `2s`, `1m 30s`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let signed: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(signed).ok()
}

fn paths(value: &Value) -> Vec<String> {
    let ValueKind::Table(table) = &value.kind else {
        return Vec::new();
    };
    let mut all: Vec<String> = Vec::new();
    for (key, inner) in table {
        match &inner.kind {
            ValueKind::Table(_) => all.extend(paths(inner).into_iter().map(|path| format!("{key}.{path}"))),
            _ => all.push(key.clone()),
        }
    }
    all.sort();
    all
}
