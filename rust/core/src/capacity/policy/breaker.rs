//! Breakers: a node whose calls fail grants nothing for a while, and then tries the service with a few of them. `Tree::set_breaker` sets
//! one, and `Tree::report` feeds it.
//!
//! # Mechanism
//!
//! There is no second way to hold a node off. A breaker starts a cooldown of the node (`cooldown.rs`) and takes over the window of its
//! ramp:
//!
//! | state | deadline of the node | window of the ramp |
//! |---|---|---|
//! | closed | none, or that of a cooldown | none, or that of the ramp |
//! | open | the opening and `open_for` | does not matter |
//! | half open | has passed | the *places*: `probes`, less the successes so far |
//!
//! So waiters keep their places, siblings go on, and nothing else waits for the waiters, as during a cooldown. The window bounds the
//! permits that are held of those granted since the opening. A place is thus freed by a release, whatever the reason. Only a success
//! removes it, and so at most `probes` calls are made in this state that have an outcome. When the last place is gone, the breaker
//! closes, and the ramp of the cooldown goes on from there: all waiters at once could fell a service that has just recovered.
//!
//! 1. *Closed to open*: a failure is reported, and the latest calls have failed too often ([`Trip`]).
//! 2. *Open to half open*: the deadline passes. No timer belongs to it besides that of the cooldown.
//! 3. *Half open to closed*: as many successes as `probes` were reported.
//! 4. *Half open to open*: one failure was reported. The node is held off for the same time again. The time does not grow: a probe
//!    costs `probes` calls in each `open_for`, which is little, and a recovery must be noticed within this time, also after a long outage.
//!
//! Calls whose permits were granted before the opening do not count after it. They are the late answers of the same outage.
//! A throttled call is neither a failure nor a success: its cooldown takes care of it. A cooldown while the breaker is not closed may
//! move the deadline, and leaves the places as they are.
//!
//! A breaker does not note its time as that of a cooldown ([`Cooled`]). A server that requires a delay says when it will answer, and a
//! queue timeout does not run meanwhile. Of an outage no end is known, and the timeout is the means to give up.
//!
//! *Cost.* Nothing without a breaker on the path. A report counts in a bucket at each breaker of the path. O(1) memory for each.
//!
//! [`Trip`]: crate::capacity::Trip
//! [`Cooled`]: crate::capacity::model::ramp::Cooled

use super::adaptive::Outcome;
use crate::capacity::index::NIL;
use crate::capacity::model::breaker::Breaker;
use crate::capacity::model::state::State;
use crate::capacity::{BreakerOptions, BreakerState, BreakerUsage, NodeError, Time};
use crate::sync::{Key, WakeList};
use std::num::NonZeroU64;
use std::time::Duration;

impl State {
    /// Set or remove the breaker of a node. One that was there is closed first.
    pub(in crate::capacity) fn set_breaker(
        &mut self,
        node: Key,
        options: Option<BreakerOptions>,
        wakes: &mut WakeList,
    ) -> Result<(), NodeError> {
        let node = self.live(node)?;
        self.read_clock();
        self.close_breaker(node);
        let ticket = self.permits.next_ticket();
        let breaker = options.map(|options| Box::new(Breaker::new(options, ticket)));
        self.nodes.at_mut(node).breaker = breaker;
        self.check_rate_heads();
        self.dispatch(wakes);
        Ok(())
    }

    /// Report the outcome of a call to the breakers of its permit's path.
    pub(in crate::capacity) fn report_to_breakers(
        &mut self,
        key: Key,
        outcome: Outcome,
        wakes: &mut WakeList,
    ) {
        let is_failure = match outcome {
            Outcome::Throttled => return,
            Outcome::Done | Outcome::Rejected => false,
            Outcome::TimedOut | Outcome::Failed => true,
        };
        let Some(record) = self.permits.get(key) else {
            return;
        };
        let (mut at, mut is_changed) = (record.node, false);
        while at != NIL {
            let here = self.nodes.at(at);
            let parent = here.parent;
            if here.breaker.is_some() {
                is_changed |= self.count_call(at, key.ticket(), is_failure);
            }
            at = parent;
        }
        if is_changed {
            self.check_rate_heads();
            self.dispatch(wakes);
        }
    }

    /// Count a call at one breaker. Return whether that changed the number of permits that may be granted.
    fn count_call(&mut self, node: u32, ticket: NonZeroU64, is_failure: bool) -> bool {
        // Not stored: a call that stores it has to grant the quota that has become ready.
        let now = self.time();
        let here = self.nodes.at_mut(node);
        let Some(breaker) = here.breaker.as_mut().filter(|one| ticket >= one.ticket) else {
            return false;
        };
        let places = here.ramp.as_mut().and_then(|ramp| ramp.probes.as_mut());
        match places {
            None if !breaker.count(is_failure, now) => return false,
            Some(places) if !is_failure && *places > 1 => {
                *places -= 1;
                self.count_window(node);
                self.refresh(node);
            }
            Some(_) if !is_failure => {
                self.read_clock();
                self.close_breaker(node);
            }
            _ => {
                self.read_clock();
                self.open_breaker(node);
            }
        }
        true
    }

    /// Hold the node off, and let its probes through after that.
    fn open_breaker(&mut self, node: u32) {
        let now = self.now;
        let is_probed =
            (self.nodes.at(node).ramp.as_ref()).is_some_and(|ramp| ramp.probes.is_some());
        if !is_probed {
            // A failed probe starts no new ramp, whose threshold would be half of the probes.
            self.count_event(node, None);
        }
        let ticket = self.permits.next_ticket();
        let here = self.nodes.at_mut(node);
        let (Some(breaker), Some(ramp)) = (&mut here.breaker, &mut here.ramp) else {
            return;
        };
        (breaker.ticket, breaker.opened) = (ticket, now);
        breaker.tally.clear();
        (ramp.ticket, ramp.before, ramp.is_open) = (ticket, here.permits, false);
        ramp.probes = Some(breaker.options.probes);
        let until = now.after(breaker.options.open_for);
        self.hold_off(node, None, until);
    }

    /// End the time for which a breaker holds the node off, if it does, and go on with the ramp.
    fn close_breaker(&mut self, node: u32) {
        let now = self.now;
        let here = self.nodes.at_mut(node);
        let (Some(breaker), Some(ramp)) = (&mut here.breaker, &mut here.ramp) else {
            return;
        };
        if ramp.probes.take().is_none() {
            return;
        }
        (ramp.window, ramp.is_open) = (breaker.options.probes, false);
        breaker.tally.clear();
        // The deadline of a cooldown stays.
        let cooled = here
            .cooled
            .as_ref()
            .map_or(Time::ZERO, |cooled| cooled.until);
        here.not_before = here.not_before.min(cooled);
        let opens = self.opens_at(node).max(now);
        self.set_timer(node, None, Some(opens));
        self.count_window(node);
        self.refresh(node);
    }

    /// Return the state of a node's breaker.
    pub(in crate::capacity) fn breaker_usage(&self, node: u32) -> Option<BreakerUsage> {
        let here = self.nodes.at(node);
        let breaker = here.breaker.as_ref()?;
        let (calls, failures) = breaker.counted(self.now);
        let is_closed = (here.ramp.as_ref()).is_none_or(|ramp| ramp.probes.is_none());
        let left = self.opens_at(node).since(self.now);
        let state = if is_closed {
            BreakerState::Closed
        } else if left.is_zero() {
            BreakerState::HalfOpen
        } else {
            BreakerState::Open
        };
        Some(BreakerUsage {
            state,
            since: (!is_closed).then(|| self.now.since(breaker.opened)),
            left: if is_closed { Duration::ZERO } else { left },
            calls,
            failures,
            probes: if state == BreakerState::HalfOpen {
                here.most.saturating_sub(here.permits)
            } else {
                0
            },
        })
    }
}
