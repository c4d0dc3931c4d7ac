//! Between the wire and the domain, by hand, at this wall and nowhere else.
//!
//! Inward every fault is collected and named by its path; outward nothing can fail.

pub(crate) mod definition;
pub(crate) mod json;
pub(crate) mod saga;
pub(crate) mod time;
