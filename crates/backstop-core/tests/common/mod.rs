//! What the tests of the rules share: definitions in a line a step, stories that print as transcripts, and
//! a small world with participants whose books are the truth.

// Each test file is a program of its own and uses a part of this.
#![allow(dead_code, unused_imports)]

pub(crate) mod plan;
pub(crate) mod story;
pub(crate) mod world;
