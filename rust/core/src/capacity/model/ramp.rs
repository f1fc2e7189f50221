//! `Ramp`, the record of a node that was cooled down and is not in full use again, and `Cooled`, its past cooldowns.
//! `policy/cooldown.rs` creates, changes and removes them, and `policy/charging.rs` counts the permits of a ramp.

use crate::capacity::clock::nanos;
use crate::capacity::{ResourceId, Time};
use std::num::NonZeroU64;

#[derive(Debug)]
pub(in crate::capacity) struct Ramp {
    /// The resource that was cooled down; `None` for the whole node.
    pub(in crate::capacity) resource: Option<ResourceId>,
    /// The time of the last event.
    pub(in crate::capacity) since: Time,
    /// Permits with a lower ticket were granted before the last event.
    pub(in crate::capacity) ticket: NonZeroU64,
    /// The number of these that are held.
    pub(in crate::capacity) before: usize,
    /// The number of later permits that may be held at once; `usize::MAX` at the end, when the ramp is only remembered.
    pub(in crate::capacity) window: usize,
    /// The places for probes while a breaker is not closed. They replace the window, which does not grow meanwhile.
    pub(in crate::capacity) probes: Option<usize>,
    /// The window grows fast below this, and slowly from this on.
    pub(in crate::capacity) threshold: usize,
    /// The greatest number of permits held at an event.
    pub(in crate::capacity) peak: usize,
    /// The number of events after the first one.
    pub(in crate::capacity) repeats: u32,
    /// The number of permits that were granted and released since the last event.
    pub(in crate::capacity) ended: u64,
    /// How often the next back-off is doubled.
    pub(in crate::capacity) doublings: u32,
    /// Whether it is remembered until a later call has ended, since an auto rate may grant the next one long after.
    pub(in crate::capacity) needs_call: bool,
    /// Whether it is only a pause, after which it ends.
    pub(in crate::capacity) is_pause: bool,
    /// Whether the cooldown is over, so that the timer of the node is that of the next step.
    pub(in crate::capacity) is_open: bool,
}

/// The cooldowns of a node, of any of its resources, since its creation.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::capacity) struct Cooled {
    /// The duration of those before the last one, in nanoseconds.
    pub(in crate::capacity) earlier: u64,
    /// The last one.
    pub(in crate::capacity) from: Time,
    pub(in crate::capacity) until: Time,
}

impl Cooled {
    /// Note a cooldown from now on.
    pub(in crate::capacity) fn note(&mut self, now: Time, until: Time) {
        if now >= self.until {
            self.earlier = self.total(now);
            (self.from, self.until) = (now, until);
        }
        self.until = self.until.max(until);
    }

    /// Return the duration of all of them until now, in nanoseconds.
    pub(in crate::capacity) fn total(&self, now: Time) -> u64 {
        let last = self.until.min(now).since(self.from);
        self.earlier.saturating_add(nanos(last))
    }
}

impl Ramp {
    /// Return whether it need not be remembered for longer.
    pub(in crate::capacity) fn is_over(&self) -> bool {
        !self.needs_call || self.ended > 0
    }

    /// Return the number of permits that the node may hold.
    pub(in crate::capacity) fn most(&self) -> usize {
        self.probes
            .unwrap_or(self.window)
            .saturating_add(self.before)
    }
}
