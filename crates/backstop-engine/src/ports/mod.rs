//! What the engine needs of the world: a store, participants and a clock. Adapters implement these.

pub mod clock;
pub mod participants;
pub mod store;
