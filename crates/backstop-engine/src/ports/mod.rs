//! What the engine needs of the world: a store, participants, the other coordinators and a clock. Adapters
//! implement these.

pub mod clock;
pub mod participants;
pub mod peers;
pub mod store;
