//! The lease of a host: both sides alone, and together over a model of a network.

#![cfg(not(loom))]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use headrace_core::worker::lease::{DriverLease, ENDING, HostState, WatchdogLease};
use proptest::collection::vec;
use proptest::prelude::*;

const MILLISECOND: u64 = 1_000_000;
const FENCE: u64 = 12_000 * MILLISECOND;
const START_UP: u64 = 60_000 * MILLISECOND;

fn driver() -> DriverLease {
    DriverLease::new(1000, FENCE, START_UP)
}

fn watchdog() -> WatchdogLease {
    WatchdogLease::new(1000, FENCE, START_UP)
}

#[test]
fn a_driver_is_silent_until_the_first_stamp() {
    let mut lease = driver();
    assert_eq!(lease.state(), HostState::Silent);
    assert!(lease.on_stamp(2000));
    assert_eq!(lease.state(), HostState::Answering);
}

#[test]
fn a_driver_without_a_stamp_waits_for_the_start_up() {
    let mut lease = driver();
    assert_eq!(lease.deadline(), 1000 + START_UP / 20 * 21 + ENDING);
    lease.advance(lease.deadline() - 1);
    assert_eq!(lease.state(), HostState::Silent);
    lease.advance(lease.deadline());
    assert_eq!(lease.state(), HostState::Fenced);
}

#[test]
fn a_host_is_silent_then_answers_then_is_fenced() {
    let mut lease = driver();
    lease.on_stamp(2000);
    assert_eq!(lease.deadline(), 2000 + FENCE / 3);
    lease.advance(lease.deadline());
    assert_eq!(lease.state(), HostState::Silent);
    let now = 2000 + FENCE / 2;
    assert!(lease.on_stamp(now));
    assert_eq!(lease.state(), HostState::Answering);
    lease.advance(lease.deadline());
    assert_eq!(lease.state(), HostState::Silent);
    assert_eq!(lease.deadline(), now + FENCE / 20 * 21 + ENDING);
    lease.advance(lease.deadline());
    assert_eq!(lease.state(), HostState::Fenced);
}

#[test]
fn a_final_state_stays_and_echoes_nothing() {
    let mut fenced = driver();
    fenced.on_stamp(2000);
    // The stamp was there in time, but the driver was suspended and reads it now.
    assert!(!fenced.on_stamp(2000 + 2 * FENCE));
    assert_eq!(fenced.state(), HostState::Fenced);
    fenced.on_ended();
    assert_eq!(fenced.state(), HostState::Fenced);

    let mut ended = driver();
    ended.on_ended();
    ended.on_disconnect();
    assert!(!ended.on_stamp(3000));
    ended.advance(u64::MAX / 2);
    assert_eq!((ended.state(), ended.is_final()), (HostState::Ended, true));
}

#[test]
fn a_lost_connection_is_silent_at_once() {
    let mut lease = driver();
    lease.on_stamp(2000);
    lease.on_disconnect();
    assert_eq!(lease.state(), HostState::Silent);
    // There is no news before the end.
    assert_eq!(lease.deadline(), 2000 + FENCE / 20 * 21 + ENDING);
}

#[test]
fn a_driver_that_stops_echoes_nothing() {
    let mut lease = driver();
    lease.on_stamp(2000);
    lease.stop();
    assert!(!lease.on_stamp(3000));
    assert_eq!(lease.state(), HostState::Answering);
    lease.advance(2000 + FENCE / 20 * 21 + ENDING);
    assert_eq!(lease.state(), HostState::Fenced);
}

#[test]
fn a_watchdog_counts_from_stamps_and_not_from_echoes() {
    let mut lease = watchdog();
    assert_eq!((lease.next_stamp(), lease.end()), (0, 1000 + START_UP));
    let first = lease.make_stamp(2000);
    // From now on: the echo may be lost.
    assert_eq!((first, lease.end()), (2000, 2000 + FENCE));
    assert_eq!(lease.next_stamp(), 2000 + FENCE / 12);
    let second = lease.make_stamp(lease.next_stamp());
    assert_eq!(lease.end(), first + FENCE);
    assert!(lease.on_echo(second, second + FENCE / 2));
    assert_eq!(lease.end(), second + FENCE);
}

#[test]
fn an_unconnected_watchdog_ends_after_the_start_up() {
    let mut lease = watchdog();
    assert!(!lease.is_over(1000 + START_UP - 1));
    assert!(lease.is_over(1000 + START_UP));
    // A connection at the last moment does not prolong it before the first echo.
    lease.make_stamp(START_UP);
    assert_eq!(lease.end(), 1000 + START_UP);
}

#[test]
fn a_watchdog_refuses_stamps_that_it_has_not_made() {
    let mut lease = watchdog();
    let stamp = lease.make_stamp(2000);
    assert!(!lease.on_echo(stamp + 1, 3000));
    assert!(lease.on_echo(stamp, 3000));
    assert!(!lease.on_echo(stamp, 3000), "it was echoed");
}

#[test]
fn an_echo_after_the_end_prolongs_nothing() {
    let mut lease = watchdog();
    let first = lease.make_stamp(2000);
    let second = lease.make_stamp(3000);
    assert!(lease.on_echo(second, first + FENCE));
    assert_eq!(lease.end(), first + FENCE);
}

/// The clock of a machine, as a function of the true time.
#[derive(Clone, Copy, Debug)]
struct Clock {
    offset: u64,
    /// Parts of a thousand.
    rate: u64,
}

impl Clock {
    fn at(self, time: u64) -> u64 {
        self.offset + time / 1000 * self.rate
    }

    /// Return the first true time at which the clock shows this.
    fn when(self, shown: u64) -> u64 {
        shown.saturating_sub(self.offset).div_ceil(self.rate) * 1000
    }
}

/// One direction of a connection: bytes are delayed, and keep their order.
#[derive(Debug)]
struct Link {
    delays: Vec<u64>,
    sent: usize,
    last: u64,
    /// Bytes that would arrive later are lost.
    cut: u64,
}

impl Link {
    fn new(delays: &[u64], cut: u64) -> Self {
        Self {
            delays: delays.to_vec(),
            sent: 0,
            last: 0,
            cut,
        }
    }

    /// Return the time of the arrival of what is sent now.
    fn send(&mut self, now: u64) -> Option<u64> {
        let delay = self.delays[self.sent % self.delays.len()];
        self.sent += 1;
        self.last = self.last.max(now + delay);
        (self.last < self.cut).then_some(self.last)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    WatchdogAccepts,
    StampIsDue,
    StampArrives(u64),
    EchoArrives(u64),
    DriverLooks,
    DriverDisconnects,
    DriverStops,
}

#[derive(Clone, Debug)]
struct Scene {
    fence: u64,
    start_up: u64,
    driver: Clock,
    watchdog: Clock,
    /// The time at which the driver connects. The watchdog has started at 0.
    connected: u64,
    down: Vec<u64>,
    up: Vec<u64>,
    /// The late starts of the watchdog when a stamp is due.
    lags: Vec<u64>,
    cut_down: u64,
    cut_up: u64,
    /// Whether the driver is notified of the end of the connection.
    is_reset: bool,
    stopped: Option<u64>,
    /// The time that the watchdog takes to end the work.
    ending: u64,
}

/// How a scene ends.
#[derive(Debug)]
struct Outcome {
    /// The true times at which the work has ended and at which the driver reports it, if they do.
    ended: Option<u64>,
    fenced: Option<u64>,
    state: HostState,
}

/// Run a scene for this long.
fn run(scene: &Scene, horizon: u64) -> Outcome {
    let mut watchdog = WatchdogLease::new(scene.watchdog.at(0), scene.fence, scene.start_up);
    let mut driver = DriverLease::new(
        scene.driver.at(scene.connected),
        scene.fence,
        scene.start_up,
    );
    let mut down = Link::new(&scene.down, scene.cut_down);
    let mut up = Link::new(&scene.up, scene.cut_up);
    let mut lags = scene.lags.iter().cycle();
    let mut events = BinaryHeap::new();
    // The token is the first that is sent.
    if let Some(time) = up.send(scene.connected) {
        events.push(Reverse((time, Event::WatchdogAccepts)));
    }
    if scene.is_reset {
        events.push(Reverse((scene.cut_down, Event::DriverDisconnects)));
    }
    if let Some(time) = scene.stopped {
        events.push(Reverse((scene.connected + time, Event::DriverStops)));
    }
    let mut fenced = None;
    let mut look = scene.driver.when(driver.deadline());
    loop {
        let next = events.peek().map_or(u64::MAX, |Reverse((time, _))| *time);
        let (now, event) = if look <= next {
            (look, Event::DriverLooks)
        } else {
            let Reverse(entry) = events.pop().unwrap();
            entry
        };
        if now > horizon {
            break;
        }
        let of_driver = scene.driver.at(now);
        let of_watchdog = scene.watchdog.at(now);
        match event {
            Event::WatchdogAccepts | Event::StampIsDue => {
                if !watchdog.is_over(of_watchdog) {
                    let stamp = watchdog.make_stamp(of_watchdog);
                    if let Some(time) = down.send(now) {
                        events.push(Reverse((time, Event::StampArrives(stamp))));
                    }
                    let due = scene.watchdog.when(watchdog.next_stamp()) + lags.next().unwrap();
                    events.push(Reverse((due, Event::StampIsDue)));
                }
            }
            Event::StampArrives(stamp) => {
                if driver.on_stamp(of_driver) {
                    assert!(fenced.is_none(), "an echo after the decision");
                    if let Some(time) = up.send(now) {
                        events.push(Reverse((time, Event::EchoArrives(stamp))));
                    }
                }
            }
            Event::EchoArrives(stamp) => assert!(watchdog.on_echo(stamp, of_watchdog)),
            Event::DriverLooks => driver.advance(of_driver),
            Event::DriverDisconnects => driver.on_disconnect(),
            Event::DriverStops => driver.stop(),
        }
        if driver.state() == HostState::Fenced && fenced.is_none() {
            fenced = Some(now);
        }
        // As soon as the state can change: the least that the driver may wait.
        look = if driver.is_final() {
            u64::MAX
        } else {
            scene.driver.when(driver.deadline())
        };
        if look == u64::MAX && events.is_empty() {
            break;
        }
    }
    let end = scene.watchdog.when(watchdog.end()) + scene.ending;
    Outcome {
        ended: (end < horizon).then_some(end),
        fenced,
        state: driver.state(),
    }
}

fn clock() -> impl Strategy<Value = Clock> {
    // Offsets of up to a year; rates that differ by up to 4%.
    (0..365 * 86_400_000 * MILLISECOND, 980..=1020u64)
        .prop_map(|(offset, rate)| Clock { offset, rate })
}

fn delay(fence: u64) -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..fence / 100, 3 => 0..fence, 1 => 0..3 * fence]
}

fn scene() -> impl Strategy<Value = Scene> {
    let fence = (50..20_000u64).prop_map(|fence| fence * MILLISECOND);
    fence.prop_flat_map(|fence| {
        let start_up = fence / 2..10 * fence;
        let timing = (start_up, 0..10 * fence, 0..ENDING / 10 * 9);
        let cut = || prop_oneof![3 => 0..20 * fence, 1 => Just(u64::MAX)];
        let links = (
            vec(delay(fence), 1..20),
            vec(delay(fence), 1..20),
            vec(delay(fence), 1..20),
        );
        let stopped = proptest::option::weighted(0.2, 0..20 * fence);
        (
            timing,
            (clock(), clock()),
            links,
            (cut(), cut()),
            any::<bool>(),
            stopped,
        )
            .prop_map(
                move |(timing, (driver, watchdog), links, (down, up), is_reset, stopped)| {
                    let (start_up, connected, ending) = timing;
                    Scene {
                        fence,
                        start_up,
                        driver,
                        watchdog,
                        // The driver connects to a watchdog that runs.
                        connected: connected % start_up,
                        down: links.0,
                        up: links.1,
                        lags: links.2,
                        cut_down: down,
                        cut_up: up,
                        is_reset: is_reset && down < u64::MAX,
                        stopped,
                        ending,
                    }
                },
            )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, ..ProptestConfig::default() })]

    #[test]
    fn fenced_is_reported_only_after_the_end_of_the_work(scene in scene()) {
        let outcome = run(&scene, 60 * scene.fence);
        if let Some(fenced) = outcome.fenced {
            let ended = outcome.ended.expect("the work ends before the horizon");
            prop_assert!(ended <= fenced, "{} > {}", ended, fenced);
        }
    }

    #[test]
    fn a_cut_network_is_always_reported(mut scene in scene()) {
        scene.cut_down = scene.cut_down.min(20 * scene.fence);
        let outcome = run(&scene, 60 * scene.fence + 10_000 * MILLISECOND);
        prop_assert_eq!(outcome.state, HostState::Fenced);
        prop_assert!(outcome.ended.is_some());
    }

    #[test]
    fn a_quick_network_never_ends_a_lease(mut scene in scene()) {
        (scene.cut_down, scene.cut_up, scene.is_reset) = (u64::MAX, u64::MAX, false);
        scene.stopped = None;
        scene.connected = 0;
        for delays in [&mut scene.down, &mut scene.up, &mut scene.lags] {
            for delay in delays {
                *delay %= scene.fence / 15;
            }
        }
        let outcome = run(&scene, 30 * scene.fence);
        prop_assert_eq!(outcome.state, HostState::Answering);
        prop_assert!(outcome.ended.is_none(), "{:?}", outcome);
    }
}
