//! What the two dashboards show: the service, and the money.
//!
//! `cargo xtask deploy --write` makes `deploy/observability/dashboards/*.json` of them, and `cargo xtask deploy`
//! fails if those are not what this file says, or ask for a metric that docs/metrics.md does not have.
//!
//! # Not here
//! Grafana's JSON: `grafana`.

mod money;
mod service;

use super::grafana::Dashboard;

/// All of them.
pub(crate) const ALL: [&Dashboard; 2] = [&service::DASHBOARD, &money::DASHBOARD];
