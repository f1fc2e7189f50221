//! A simulation of hours in milliseconds: loads that ask a tree for capacity, hold it for a while, and ask again.
//!
//! It knows nothing of how the tree decides. What it keeps are its own books: who holds what at which node, who waits,
//! and how much each load has received; and after every event it looks whether anybody waits for what is free.

use super::dice::Dice;
use super::rig::{Rig, Spot};
use headrace_core::capacity::{Acquire, Permit};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

pub const SECOND: u64 = 1_000_000_000;

/// How long a job holds what it was granted, in seconds.
#[derive(Clone, Copy, Debug)]
pub enum Hold {
    Always(f64),
    /// Exponential of this mean, cut at five of them.
    Exponential(f64),
}

impl Hold {
    fn draw(self, dice: &mut Dice) -> u64 {
        let seconds = match self {
            Self::Always(seconds) => seconds,
            Self::Exponential(mean) => (-dice.unit().ln()).min(5.0) * mean,
        };
        nanos(seconds)
    }

    /// The longest it can be.
    pub fn longest(self) -> f64 {
        match self {
            Self::Always(seconds) => seconds,
            Self::Exponential(mean) => 5.0 * mean,
        }
    }
}

/// What asks for capacity at one node: as long as it is on, so many jobs wait there, and each that is granted is
/// replaced by a new one.
#[derive(Debug)]
pub struct Load {
    pub spot: Spot,
    /// What each job needs, by the number of the resource.
    pub cost: Vec<(usize, u64)>,
    pub hold: Hold,
    /// How many wait while it is on.
    pub backlog: usize,
    pub on: bool,
    /// The jobs that wait, the oldest first.
    pub waiting: VecDeque<usize>,
    /// How many run.
    pub running: u64,
    /// How many were ever granted.
    pub granted: u64,
    /// Job-seconds received, up to now.
    pub received: f64,
    /// How long each job waited, in seconds, in the order of the grants.
    pub waits: Vec<f64>,
}

#[derive(Debug)]
struct Job {
    load: usize,
    since: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting(Acquire),
    Running(Permit),
}

/// Wakes a job by name.
struct Bell {
    job: usize,
    rung: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.lock().unwrap().push(self.job);
    }
}

#[derive(Debug)]
pub struct World {
    pub rig: Rig,
    pub dice: Dice,
    pub loads: Vec<Load>,
    /// Whether somebody may be passed, so that something is kept for it. Nobody may be left waiting for the rest.
    pub reserves: bool,
    now: u64,
    ends: BinaryHeap<Reverse<(u64, usize)>>,
    jobs: Vec<Option<Job>>,
    vacant: Vec<usize>,
    rung: Arc<Mutex<Vec<usize>>>,
}

impl World {
    pub fn new(rig: Rig, seed: u64) -> Self {
        Self {
            rig,
            dice: Dice::new(seed),
            loads: Vec::new(),
            reserves: false,
            now: 0,
            ends: BinaryHeap::new(),
            jobs: Vec::new(),
            vacant: Vec::new(),
            rung: Arc::default(),
        }
    }

    /// Adds a load that is still off.
    pub fn load(&mut self, spot: Spot, cost: &[(usize, u64)], hold: Hold, backlog: usize) -> usize {
        self.loads.push(Load {
            spot,
            cost: cost.to_vec(),
            hold,
            backlog,
            on: false,
            waiting: VecDeque::new(),
            running: 0,
            granted: 0,
            received: 0.0,
            waits: Vec::new(),
        });
        self.loads.len() - 1
    }

    /// In seconds.
    pub fn now(&self) -> f64 {
        seconds(self.now)
    }

    pub fn switch(&mut self, load: usize, on: bool) {
        self.loads[load].on = on;
        self.top_up(load);
        self.settle();
    }

    /// One more job, whether the load is on or not.
    pub fn submit(&mut self, load: usize) {
        let Load { spot, cost, .. } = &self.loads[load];
        let acquire = self.rig.acquire(*spot, cost);
        let job = Job {
            load,
            since: self.now,
            state: State::Waiting(acquire),
        };
        let name = if let Some(name) = self.vacant.pop() {
            self.jobs[name] = Some(job);
            name
        } else {
            self.jobs.push(Some(job));
            self.jobs.len() - 1
        };
        self.loads[load].waiting.push_back(name);
        self.poll(name);
    }

    /// Drops the job that stands at this place of the load's line.
    pub fn cancel(&mut self, load: usize, place: usize) {
        if let Some(name) = self.loads[load].waiting.remove(place) {
            self.vacant.push(name);
            self.jobs[name] = None;
        }
        self.top_up(load);
        self.settle();
    }

    pub fn resize(&mut self, spot: Spot, limits: &[(usize, u64)]) {
        self.rig.resize(spot, limits);
        self.settle();
    }

    pub fn pause(&mut self, spot: Spot) {
        self.rig.pause(spot, true);
    }

    pub fn resume(&mut self, spot: Spot) {
        self.rig.pause(spot, false);
        self.settle();
    }

    /// When the next job ends, in seconds.
    pub fn next_end(&self) -> Option<f64> {
        let Reverse((time, _)) = self.ends.peek()?;
        Some(seconds(*time))
    }

    /// Lets time go on. `observe` sees every stretch in which nothing changes, at its end, with its length in seconds.
    pub fn run_until(&mut self, end: f64, mut observe: impl FnMut(&Self, f64)) {
        let end = nanos(end);
        while let Some(&Reverse((time, name))) = self.ends.peek()
            && time <= end
        {
            self.ends.pop();
            self.pass(time, &mut observe);
            let job = self.jobs[name].take().expect("it runs until now");
            self.vacant.push(name);
            let load = &mut self.loads[job.load];
            load.running -= 1;
            self.rig.book(load.spot, &load.cost, false);
            drop(job);
            self.settle();
        }
        self.pass(end, &mut observe);
    }

    fn pass(&mut self, time: u64, observe: &mut impl FnMut(&Self, f64)) {
        if time == self.now {
            return;
        }
        let stretch = seconds(time - self.now);
        for load in &mut self.loads {
            load.received += as_float(load.running) * stretch;
        }
        self.now = time;
        self.rig.clock_to(time);
        observe(self, stretch);
    }

    fn top_up(&mut self, load: usize) {
        while self.loads[load].on && self.loads[load].waiting.len() < self.loads[load].backlog {
            self.submit(load);
        }
    }

    /// Hands out what the tree has granted, and looks whether that was all.
    fn settle(&mut self) {
        loop {
            let rung = std::mem::take(&mut *self.rung.lock().unwrap());
            if rung.is_empty() {
                break;
            }
            for name in rung {
                let load = self.poll(name);
                self.top_up(load);
            }
        }
        self.check();
    }

    fn poll(&mut self, name: usize) -> usize {
        let job = self.jobs[name].as_mut().expect("nobody wakes the dead");
        let State::Waiting(acquire) = &mut job.state else {
            panic!("job {name} was woken though it runs");
        };
        let waker = Waker::from(Arc::new(Bell {
            job: name,
            rung: Arc::clone(&self.rung),
        }));
        if let Poll::Ready(permit) = Pin::new(acquire).poll(&mut Context::from_waker(&waker)) {
            job.state = State::Running(permit.expect("nothing here is ever refused"));
            let load = &mut self.loads[job.load];
            let place = load.waiting.iter().position(|&other| other == name);
            load.waiting.remove(place.expect("it waited"));
            load.waits.push(seconds(self.now - job.since));
            load.granted += 1;
            load.running += 1;
            self.rig.book(load.spot, &load.cost, true);
            let length = load.hold.draw(&mut self.dice);
            self.ends.push(Reverse((self.now + length, name)));
        }
        job.load
    }

    fn check(&self) {
        for load in &self.loads {
            let fits = || {
                self.rig.fits(load.spot, &load.cost)
                    && (!self.reserves || self.rig.fits_unreserved(load.spot, &load.cost))
            };
            assert!(
                load.waiting.is_empty() || !fits(),
                "at {} s somebody waits for what is free: {load:?}",
                self.now(),
            );
        }
    }
}

/// Jain's index of fairness: 1 if all have the same, 1/n if one has all.
#[allow(clippy::cast_precision_loss)]
pub fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (shares.len() as f64 * squares)
}

/// The value below which so much of them lies.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part).round() as usize]
}

#[allow(clippy::cast_precision_loss)]
pub fn as_float(count: u64) -> f64 {
    count as f64
}

#[allow(clippy::cast_precision_loss)]
pub fn seconds(nanos: u64) -> f64 {
    nanos as f64 / SECOND as f64
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
pub fn nanos(seconds: f64) -> u64 {
    (seconds * SECOND as f64).round() as u64
}
