//! The wire types of Backstop's API, generated from `proto/`, and their descriptor set.
//!
//! Nobody adds methods here: conversions stand at the walls, in `backstop-rpc` and in the binary.

/// `backstop.v1`: what clients and operators call.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("backstop.v1");
}

/// `backstop.participant.v1`: what participants may implement.
pub mod participant {
    /// Version 1.
    #[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
    pub mod v1 {
        tonic::include_proto!("backstop.participant.v1");
    }
}

/// The encoded `FileDescriptorSet` of all of the above with its imports and comments: for server
/// reflection, and for the JSON mapping in the CLI.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
