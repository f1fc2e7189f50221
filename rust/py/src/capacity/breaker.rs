//! Breakers, as Python passes and receives them. `node.rs`, `convert.rs` and `listing.rs` use it; `headrace/capacity/breaker.py` has the
//! classes.

use std::time::Duration;

use headrace_core::capacity::{BreakerOptions, BreakerState, BreakerUsage, Trip};

/// The options: consecutive failures or `None`, share, minimum, window, `open_for`, probes. Python has checked them.
pub(super) type Options = (Option<u32>, f64, u32, f64, f64, usize);

/// The state: its name, the times since it opened and until it is half open, calls, failures, probes.
pub(super) type Status = (&'static str, Option<f64>, f64, u32, u32, usize);

pub(super) fn options_to_core(options: Options) -> BreakerOptions {
    let (consecutive, share, minimum, window, open_for, probes) = options;
    let seconds = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    let share = Trip::Share {
        share,
        minimum,
        window: seconds(window),
    };
    BreakerOptions {
        trip: consecutive.map_or(share, Trip::Consecutive),
        open_for: seconds(open_for),
        probes,
    }
}

pub(super) fn status_to_python(usage: BreakerUsage) -> Status {
    let state = match usage.state {
        BreakerState::Closed => "closed",
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half_open",
    };
    (
        state,
        usage.since.map(|since| since.as_secs_f64()),
        usage.left.as_secs_f64(),
        usage.calls,
        usage.failures,
        usage.probes,
    )
}
