//! The model: small sagas among two coordinators, a journal and a network, explored whole within stated bounds, by the real
//! rules of `backstop-core`, with every promise of `backstop-invariants` checked at every state.
//!
//! What is in it and what is not, how to read what it prints, and its figures: `docs/model.md`.
//!
//! # Invariants
//! * Within the bounds everything is tried, and that is proven: floors under the number of states, every kind of event,
//!   every state of a branch and of a saga, every point of a turn at which a coordinator can die (`tests/small.rs`).
//! * It bites: every guard that is knocked out is found (`cargo xtask model`, `mutants/`).
//!
//! # Not here
//! Time that passes, sockets, the real store, many sagas: `backstop-sim`.

mod books;
mod bounds;
mod checker;
mod coverage;
mod runs;
mod shape;
mod world;

pub use books::Said;
pub use bounds::{ACTIONS, Bounds};
pub use checker::{Counterexample, Found, Walk, explore};
pub use coverage::{CROSSINGS, Coverage, STAGES};
pub use runs::{Run, Sum, Width, hunt, runs, without_a_bound};
pub use shape::{Manner, ON_FAILURE, ORDERS, SHAPES, Shape};
pub use world::{Choice, World};
