//! Tasks of a pool, as its users create them.
//!
//! | module | contents |
//! |---|---|
//! | [`base`] | `PyTaskBase`: a callable with its arguments and options |
//! | [`checks`] | checks of common options |

pub(crate) mod base;
mod checks;
