//! The adaptive limit: a controller that learns how many calls a server takes at once.

mod controller;
mod window;

pub use controller::{AdaptiveRange, Controller, Outcome, Sample};
