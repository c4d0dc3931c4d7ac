//! The model.
mod books;
mod bounds;
mod checker;
mod coverage;
mod runs;
mod shape;
mod world;

pub use books::Said;
pub use bounds::Bounds;
pub use checker::{Counterexample, Found, Walk, explore};
pub use coverage::{Coverage, KINDS, STAGES};
pub use runs::{Run, Sum, Width, runs};
pub use shape::{Manner, ON_FAILURE, ORDERS, SHAPES, Shape};
pub use world::{Choice, World};
