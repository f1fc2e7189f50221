//! Cooldown: a node, or one of its resources, grants nothing until a deadline, and is then ramped up. `Tree::cool_down`
//! starts it, `rate_queue.rs` fires its timer, and `dispatch.rs` and `eligibility.rs` respect it.
//!
//! # Events
//!
//! A service that rejects a call usually rejects all calls of that moment. Calls of `cool_down` are one *event* while the cooldown
//! lasts, and for one [pace](State::pace) after its start, in which the answers to calls from before arrive. Each may move the
//! deadline to a later time, and none does anything else. A later call is the next event.
//!
//! # The ramp
//!
//! At the deadline, all waiters want to start. The service has just reported that it cannot serve as many, so most would be
//! rejected. Therefore a *window* bounds the number of permits that are held of those granted since the event. It starts at 1,
//! so that the first grant is made at the deadline. Permits from before the event do not count: they may be held for any time.
//!
//! 1. Below a *threshold* the window doubles each pace, the mean hold, between 50 ms and 1 s. The threshold is half of the number of
//!    permits that were held at the event: so many were probably fine.
//! 2. From there on it doubles each second. An event during the ramp doubles this interval, up to 4 s, and begins the ramp again.
//!    The threshold is then half of what was held, or less: the mean number of permits that were held of those granted since the
//!    event before, which is their rate times the mean hold. So calls that hang, and hold permits for long, do not raise it.
//! 3. The bound ends when the window reaches the least limit of slots on the path. Without one it ends at twice the number of permits
//!    that were held at any of the events, and at least at 64.
//! 4. The ramp is remembered for as long again as the last cooldown, from one interval to 64 s. So back-off grows also where one slot is
//!    all, and the service rejects each call. With an auto rate, which may have fallen to a call in ten seconds, it is also remembered until
//!    a later call has ended.
//!
//! The window grows in small steps, by 1 or an eighth, since a sudden doubling would be rejected as a whole.
//!
//! A breaker (`breaker.rs`) holds its node off in the same way, and replaces the window until its probes have succeeded.
//!
//! *Reason.* The threshold and the interval are the memory of the ramp. A rate limit has its own best number of calls in flight,
//! often 1 or 2. A window that always doubles fast passes it within a second of each deadline, with many rejections. With the
//! memory it stays near that number, and passes it once in several seconds, by one. In a simulation of 40 slots, calls of 50 to
//! 200 ms and a service that admits 10 calls a second after a burst of 60, 2.0% of the calls were rejected, at 97% of the
//! allowed rate. A constant interval of 1 s had 4.8%, and a longest interval of 16 s lost 8% of the rate.
//!
//! *Bound.* A window reaches a limit of `n` slots at most `log2(n) x 4 s` after the last cooldown, and in less than 5 s for 40 slots where
//! one event was all. It grows by time alone, so a node without a grant or a release is in full use again after this time, too. During a
//! ramp no request takes the fast path of `uncontended.rs`. A ramp has at most eight steps for each doubling.
//!
//! # Without a delay
//!
//! If the service gives no delay, the first one is 0.5 s. An event doubles it, up to 64 s, if no call has ended since the event before: the service
//! rejects everything. Otherwise calls were served meanwhile, and the event halves it, down to 0.5 s again. So at a rate limit the delay settles
//! near the time in which the rate admits a few calls. A delay that only grew would be 64 s after seven events, of which a rate limit
//! causes one every few seconds: a service of 10 calls a second was used at 18%.
//!
//! # With an adaptive limit
//!
//! A throttled answer without a delay says that too many calls ran at once. An adaptive limit on the path of the call has learned
//! that from the report of the call, and is lower now. A back-off and a ramp would answer the same event again, and hold back far
//! more: a server that serves 40 calls of 1 s at once was used at 78%, as each answer cost half a second and a ramp of six.
//! So the node only pauses ([`State::back_off`]), for an eighth of its pace, doubled by each decrease of the limit in a row
//! ([`Controller::setbacks`]), and for one pace at most. There is no ramp. Within one pace the calls that were sent too many have been
//! rejected, and as many have ended as the limit fell by.
//!
//! The server in question is then used at 97%, with 0.2% of the calls rejected, as without any pause. With a whole pace at each event it was used
//! at 93%. With pauses that double without a bound, a server that now serves 10 calls in place of 40 was used at 2% of that for a minute,
//! since each of the dozen decreases in a row doubles them.
//!
//! *Bound.* Each event in a row lowers the limit, by a tenth and at least by 1. So a server that rejects every call is called at most
//! about ten times the limit before the limit is at its minimum. There, no decrease answers the event, and the node is
//! cooled down as any other, with a back-off that doubles; also from the fifth decrease of an auto rate in a row on.
//! A node with a ramp that is not over is cooled down as well. A delay that the server gives always counts as a whole: it is an
//! order, not a measurement.
//!
//! # Effect on waiters
//!
//! A waiter below a cooled node or at a full window is held up as by a pause ([`FitResult::Parked`]): it keeps its rank, is not
//! passed, misses nothing, reserves nothing and is the head of no rate. So nothing else waits for it. The node is not
//! eligible meanwhile. Afterwards its tag is lifted to the virtual time, as that of any child that could not use its share: it is neither
//! charged nor compensated.
//!
//! [`FitResult::Parked`]: super::dispatch::FitResult::Parked
//! [`Controller::setbacks`]: super::adaptive::Controller::setbacks

use super::adaptive::Controller;
use crate::capacity::index::NIL;
use crate::capacity::model::ramp::{Cooled, Ramp};
use crate::capacity::model::state::State;
use crate::capacity::{NodeError, ResourceId, Time};
use crate::sync::{Key, WakeList};
use std::num::NonZeroU64;
use std::time::Duration;

/// The pace of an event and of a ramp below its threshold.
const LEAST_PACE: Duration = Duration::from_millis(50);
const GREATEST_PACE: Duration = Duration::from_secs(1);
/// The time in which a ramp doubles from its threshold on, after one event.
const INTERVAL: Duration = Duration::from_secs(1);
/// The number of times that later events double it.
const INTERVAL_DOUBLINGS: u32 = 2;
/// The longest time for which a ramp is remembered.
const GREATEST_MEMORY: Duration = Duration::from_secs(64);
/// The steps of one doubling.
const STEPS: usize = 8;
/// Without a limit of slots, a ramp ends at this window or later.
const UNLIMITED: usize = 64;
/// The delay of the first event without one, and how often it is doubled at most.
const BACK_OFF: Duration = Duration::from_millis(500);
const BACK_OFF_DOUBLINGS: u32 = 7;
/// The part of a pace for which a node pauses after the first decrease of an adaptive limit. Each further one doubles it, this many times.
const PAUSE_PART: u32 = 8;
const PAUSE_DOUBLINGS: u32 = 3;

impl State {
    /// Grant nothing at a node before a delay has passed, then ramp it up. Returns the time until then.
    ///
    /// Without a delay, it is the back-off of the node.
    pub(in crate::capacity) fn cool_down(
        &mut self,
        node: Key,
        id: Option<ResourceId>,
        delay: Option<Duration>,
        wakes: &mut WakeList,
    ) -> Result<Duration, NodeError> {
        let node = self.live(node)?;
        if let Some(id) = id {
            let resource = self.nodes.at(node).resource(id);
            let is_limited = resource.is_some_and(|resource| resource.largest().is_some());
            is_limited.then_some(()).ok_or(NodeError::Unlimited(id))?;
        }
        let now = self.read_clock();
        // Grants that are due precede it, and the ramp is brought up to date.
        self.dispatch(wakes);
        if delay != Some(Duration::ZERO) {
            let back_off = BACK_OFF * 2_u32.pow(self.count_event(node, id));
            self.cool_until(node, id, now.after(delay.unwrap_or(back_off)), wakes);
        }
        Ok(self.cooldown_left(node, id))
    }

    fn cool_until(&mut self, node: u32, id: Option<ResourceId>, until: Time, wakes: &mut WakeList) {
        let now = self.now;
        let cooled = self.nodes.at_mut(node).cooled.get_or_insert_default();
        cooled.note(now, until);
        self.hold_off(node, id, until);
        self.dispatch(wakes);
    }

    /// Return the time until the cooldown of a node or of one of its resources ends. A breaker may hold the node off for longer.
    fn cooldown_left(&self, node: u32, id: Option<ResourceId>) -> Duration {
        let here = self.nodes.at(node);
        let resource = id.and_then(|id| here.resource(id));
        let until = resource.map_or(Time::ZERO, |resource| resource.not_before);
        let cooled = here
            .cooled
            .as_ref()
            .map_or(Time::ZERO, |cooled| cooled.until);
        here.not_before.max(until).min(cooled).since(self.now)
    }

    /// Cool down a node after a throttled answer without a delay to a call at `leaf`, which is the node or below it. Returns the time
    /// until then.
    ///
    /// The node only pauses if an adaptive limit on the path of the leaf has answered the event.
    pub(in crate::capacity) fn back_off(
        &mut self,
        node: Key,
        leaf: Key,
        wakes: &mut WakeList,
    ) -> Result<Duration, NodeError> {
        let place = self.live(node)?;
        let setbacks = self.find_node(leaf).map_or(0, |leaf| self.setbacks(leaf));
        let ramp = self.nodes.at(place).ramp.as_ref();
        if setbacks == 0 || ramp.is_some_and(|ramp| ramp.window < usize::MAX) {
            let left = self.cool_down(node, None, None, wakes)?;
            self.keep_ramp(place, leaf);
            return Ok(left);
        }
        let now = self.read_clock();
        // As in `cool_down`.
        self.dispatch(wakes);
        self.begin_pause(place);
        let pause = self.pace(place) / PAUSE_PART * 2_u32.pow(PAUSE_DOUBLINGS.min(setbacks - 1));
        self.cool_until(place, None, now.after(pause), wakes);
        Ok(self.cooldown_left(place, None))
    }

    /// Remember the ramp of a node until a later call has ended, if the calls at `leaf` have an auto rate.
    fn keep_ramp(&mut self, node: u32, leaf: Key) {
        let Some(leaf) = self.find_node(leaf) else {
            return;
        };
        let has_auto_rate = self.path(leaf).any(|at| {
            let mut resources = self.nodes.at(at).resources.iter();
            resources.any(|resource| resource.rate_controller().is_some())
        });
        if let Some(ramp) = &mut self.nodes.at_mut(node).ramp {
            ramp.needs_call |= has_auto_rate;
        }
    }

    fn begin_pause(&mut self, node: u32) {
        let (since, ticket) = (self.now, self.permits.next_ticket());
        let here = self.nodes.at_mut(node);
        if let Some(ramp) = &mut here.ramp {
            // The limit is above its minimum again: a ramp that is only remembered is forgotten after the pause.
            (ramp.is_pause, ramp.is_open) = (true, false);
            return;
        }
        here.ramp = Some(Box::new(Ramp {
            resource: None,
            since,
            ticket,
            before: here.permits,
            window: usize::MAX,
            probes: None,
            threshold: usize::MAX,
            peak: here.permits,
            repeats: 0,
            ended: 0,
            doublings: 0,
            needs_call: false,
            is_pause: true,
            is_open: false,
        }));
        self.ramps += 1;
        self.busy += 1;
    }

    /// Start or restart the ramp of a node, and return how often the back-off of this event is doubled.
    pub(super) fn count_event(&mut self, node: u32, id: Option<ResourceId>) -> u32 {
        if (self.nodes.at(node).ramp.as_ref()).is_some_and(|ramp| ramp.is_pause) {
            self.end_ramp(node);
        }
        let (now, pace) = (self.now, self.pace(node));
        let opens = self.opens_at(node);
        let hold = self.nodes.at(node).hold.unwrap_or(self.estimate);
        let ticket = self.permits.next_ticket();
        let here = self.nodes.at_mut(node);
        let held = here.permits;
        let is_first = here.ramp.is_none();
        let ramp = here.ramp.get_or_insert_with(|| {
            Box::new(Ramp {
                resource: id,
                since: now,
                ticket,
                before: held,
                window: 1,
                probes: None,
                threshold: 1.max(held / 2),
                peak: held,
                repeats: 0,
                ended: 0,
                doublings: 0,
                needs_call: false,
                is_pause: false,
                is_open: false,
            })
        });
        if !is_first && now >= opens.max(ramp.since.after(pace)) {
            if ramp.probes.is_none() {
                // Little's law. Grants of the whole tree are counted, so this may be too high, and then half of what is held decides.
                let granted = u128::from(ticket.get() - ramp.ticket.get());
                let mean = granted * u128::from(hold) / now.since(ramp.since).as_nanos().max(1);
                let mean = usize::try_from(mean).unwrap_or(usize::MAX);
                (ramp.ticket, ramp.before) = (ticket, held);
                ramp.threshold = mean.clamp(1, 1.max(held / 2));
            }
            ramp.since = now;
            ramp.peak = ramp.peak.max(held);
            ramp.repeats += 1;
            ramp.doublings = if ramp.ended == 0 {
                BACK_OFF_DOUBLINGS.min(ramp.doublings + 1)
            } else {
                ramp.doublings.saturating_sub(1)
            };
            ramp.ended = 0;
        }
        let widened = ramp.resource.filter(|_| ramp.resource != id);
        if widened.is_some() {
            ramp.resource = None;
        }
        (ramp.window, ramp.is_open) = (1, false);
        let doublings = ramp.doublings;
        if let Some(resource) = widened.and_then(|id| here.resource_mut(id)) {
            resource.most = usize::MAX;
        }
        if is_first {
            self.ramps += 1;
            self.busy += 1;
        }
        doublings
    }

    /// Move the deadline of a node, or of one of its resources, to `until`, unless it is later already.
    pub(super) fn hold_off(&mut self, node: u32, id: Option<ResourceId>, until: Time) {
        let here = self.nodes.at_mut(node);
        if let Some(resource) = id.and_then(|id| here.resource_mut(id)) {
            let until = until.max(resource.not_before);
            resource.not_before = until;
            // Its timer may be that of its head.
            if let Some(head) = resource.head {
                self.drop_rate_heads(head);
                self.refresh(self.waiters.at(head).node);
            }
            self.set_timer(node, id, Some(until));
        } else {
            here.not_before = here.not_before.max(until);
        }
        let opens = self.opens_at(node).max(self.now);
        self.set_timer(node, None, Some(opens));
        self.count_window(node);
        self.refresh(node);
        self.check_rate_heads();
    }

    /// Return the end of the cooldown that the ramp of a node follows.
    pub(in crate::capacity) fn opens_at(&self, node: u32) -> Time {
        let here = self.nodes.at(node);
        let id = here.ramp.as_ref().and_then(|ramp| ramp.resource);
        let resource = id.and_then(|id| here.resource(id));
        resource.map_or(here.not_before, |resource| {
            resource.not_before.max(here.not_before)
        })
    }

    /// Return for how long the nodes of a path were cooled down until now, in sum, and for how long they still are.
    pub(in crate::capacity) fn cooled(&self, node: u32) -> (Duration, Duration) {
        let (mut total, mut until) = (0_u64, self.now);
        for cooled in self
            .path(node)
            .filter_map(|at| self.nodes.at(at).cooled.as_ref())
        {
            total = total.saturating_add(cooled.total(self.now));
            until = until.max(cooled.until);
        }
        (Duration::from_nanos(total), until.since(self.now))
    }

    /// Return the time in which a service answers.
    fn pace(&self, node: u32) -> Duration {
        let hold = self.nodes.at(node).hold.unwrap_or(self.estimate);
        Duration::from_nanos(hold).clamp(LEAST_PACE, GREATEST_PACE)
    }

    /// Return the window at which the ramp of a node ends.
    fn full_window(&self, node: u32, peak: usize) -> usize {
        let limits = self.path(node).filter_map(|at| {
            let slots = self.nodes.at(at).resource(ResourceId::SLOTS)?;
            // An adaptive limit bounds the calls by itself. A limit may be 0 for a while.
            let adaptive = slots.controller().map(Controller::micros);
            let limit = adaptive.filter(|&limit| limit > 0).or(slots.ceiling)?;
            Some(limit.div_ceil(1_000_000))
        });
        let least = limits.min();
        let unlimited = UNLIMITED.max(peak.saturating_mul(2));
        least.map_or(unlimited, |slots| {
            usize::try_from(slots).unwrap_or(usize::MAX)
        })
    }

    /// Take the step of a ramp that was due at a time. Must be followed by a `refresh` of the node.
    pub(in crate::capacity) fn ramp_up(&mut self, node: u32, due: Time) {
        let Some(ramp) = &self.nodes.at(node).ramp else {
            return;
        };
        let full = self.full_window(node, ramp.peak);
        let pace = self.pace(node);
        let cooled = self.nodes.at(node).cooled.as_deref();
        let Cooled { from, until, .. } = cooled.copied().unwrap_or_default();
        let ramp = self.nodes.at_mut(node).ramp.as_mut();
        let ramp = ramp.expect("it was found above");
        if ramp.probes.is_some() {
            // A breaker waits for the outcomes of its probes.
            ramp.is_open = true;
            return;
        }
        if ramp.window == usize::MAX && until <= due {
            if ramp.is_over() {
                self.end_ramp(node);
            }
            return;
        }
        if std::mem::replace(&mut ramp.is_open, true) {
            ramp.window = ramp.window.saturating_add(1.max(ramp.window / STEPS));
        }
        let interval = INTERVAL * 2_u32.pow(ramp.repeats.min(INTERVAL_DOUBLINGS));
        if ramp.window >= full {
            ramp.window = usize::MAX;
            let memory = until.since(from).clamp(interval, GREATEST_MEMORY);
            // One of its resources may be cooled down for longer.
            self.set_timer(node, None, Some(due.after(memory).max(until)));
            self.count_window(node);
            return;
        }
        let doubling = if ramp.window < ramp.threshold {
            pace
        } else {
            interval
        };
        let step = u32::try_from(ramp.window.min(STEPS)).unwrap_or(u32::MAX);
        // From the time at which it was due, so that a late or absent timer does not slow it down.
        self.set_timer(node, None, Some(due.after(doubling / step)));
        self.count_window(node);
    }

    /// End the ramp of a node, if there is one.
    pub(in crate::capacity) fn end_ramp(&mut self, node: u32) {
        let here = self.nodes.at_mut(node);
        let Some(ramp) = here.ramp.take() else {
            return;
        };
        here.most = usize::MAX;
        if let Some(resource) = ramp.resource.and_then(|id| here.resource_mut(id)) {
            resource.most = usize::MAX;
        }
        self.ramps -= 1;
        self.busy -= 1;
    }

    /// Store the number of permits that a node may hold where a search finds it.
    pub(super) fn count_window(&mut self, node: u32) {
        let here = self.nodes.at_mut(node);
        let Some(ramp) = &here.ramp else {
            return;
        };
        let most = ramp.most();
        match ramp.resource {
            None => here.most = most,
            Some(id) => {
                if let Some(resource) = here.resource_mut(id) {
                    resource.most = most;
                }
            }
        }
    }

    /// Count a permit that begins or ceases to be held, for the ramps of its path. Its nodes have counted it.
    #[inline]
    pub(in crate::capacity) fn count_for_ramps(
        &mut self,
        node: u32,
        ticket: NonZeroU64,
        is_held: bool,
    ) {
        if self.ramps > 0 {
            self.count_before(node, ticket, is_held);
        }
    }

    #[cold]
    fn count_before(&mut self, node: u32, ticket: NonZeroU64, is_held: bool) {
        let (mut at, now) = (node, self.now);
        while at != NIL {
            let here = self.nodes.at_mut(at);
            let parent = here.parent;
            if let Some(ramp) = &mut here.ramp {
                match (ticket < ramp.ticket, is_held) {
                    (true, true) => ramp.before += 1,
                    (true, false) => ramp.before -= 1,
                    (false, true) => {}
                    (false, false) => ramp.ended += 1,
                }
                // Without a timer, it is remembered for this call alone.
                let is_over = ramp.window == usize::MAX && ramp.is_over() && here.timer.is_none();
                if is_over {
                    self.set_timer(at, None, Some(now));
                }
            }
            self.count_window(at);
            at = parent;
        }
    }
}
