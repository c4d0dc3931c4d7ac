//! The demo: a bank of four small services, and the story that `backstop demo` tells with them.
//!
//! The bank (`ledger`, `risk`, `audit`) knows nothing of Backstop: ordinary unary methods, and an
//! idempotency key in the metadata. The one exception says so: a ledger may listen to rollback signals
//! ([`ledger::signals`]). The story ([`story`]) starts every part as a process of its own, talks to
//! all of them over gRPC only, and proves at the end that the money adds up.
//!
//! # Not here
//! The command line, and reading the definition's YAML: the `backstop` binary, which hands
//! [`DemoOptions`] in. The files that the story is made of: `examples/transfer/`.

pub mod audit;
pub mod ledger;
pub mod risk;
pub mod service;
pub mod spec;
pub mod story;

mod trace;
mod wire;

pub use service::{ServiceError, run_service};
pub use spec::{ServiceKind, ServiceSpec, SpecError};
pub use story::{DemoError, DemoOptions, Screen, files, run_demo};

/// Generated from `examples/transfer/proto/`.
pub mod bank {
    /// `bank.ledger.v1`.
    #[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
    pub mod ledger {
        tonic::include_proto!("bank.ledger.v1");
    }
    /// `bank.risk.v1`.
    #[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
    pub mod risk {
        tonic::include_proto!("bank.risk.v1");
    }
    /// `bank.audit.v1`.
    #[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
    pub mod audit {
        tonic::include_proto!("bank.audit.v1");
    }
    /// The encoded `FileDescriptorSet` of `bank.ledger.v1`.
    pub const LEDGER_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ledger.bin"));
    /// The encoded `FileDescriptorSet` of `bank.risk.v1`.
    pub const RISK_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/risk.bin"));
    /// The encoded `FileDescriptorSet` of `bank.audit.v1`.
    pub const AUDIT_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/audit.bin"));
}
