//! What the engine needs of the world: a store, participants, the other coordinators, a clock and a computer.
//! Adapters implement these.

pub mod clock;
pub mod machine;
pub mod participants;
pub mod peers;
pub mod store;
pub mod traces;
