//! What the tests of the rules share: definitions in a line a step, and stories that print as transcripts.

// Each test file is a program of its own and uses a part of this.
#![allow(dead_code, unused_imports)]

pub(crate) mod plan;
pub(crate) mod story;
