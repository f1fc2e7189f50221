//! A simulation of hours in milliseconds: loads that request capacity from a tree, hold it for a while, and request it again.
//!
//! It is independent of the decisions of the tree. It keeps its own records of the amounts held at each node, the waiting
//! jobs, and the amount that each load has received. After every event it asserts that no waiting job fits.

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

/// The hold time of a job, in seconds.
#[derive(Clone, Copy, Debug)]
pub enum Hold {
    Always(f64),
    /// Exponential with this mean, cut at five times the mean.
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

    /// Return the longest possible hold.
    pub fn longest(self) -> f64 {
        match self {
            Self::Always(seconds) => seconds,
            Self::Exponential(mean) => 5.0 * mean,
        }
    }
}

/// A source of jobs at one node. While it is on, `backlog` jobs wait there: each granted job is replaced by a new one.
#[derive(Debug)]
pub struct Load {
    pub spot: Spot,
    /// The cost of each job, by the number of the resource.
    pub cost: Vec<(usize, u64)>,
    pub hold: Hold,
    /// The number of waiting jobs while it is on.
    pub backlog: usize,
    pub on: bool,
    /// The waiting jobs, the oldest first.
    pub waiting: VecDeque<usize>,
    /// The number of running jobs.
    pub running: u64,
    /// The number of grants so far.
    pub granted: u64,
    /// Job-seconds received so far.
    pub received: f64,
    /// The wait of each job in seconds, in the order of the grants.
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

/// A waker that logs the name of its job.
struct JobWaker {
    job: usize,
    woken: Arc<Mutex<Vec<usize>>>,
}

impl Wake for JobWaker {
    fn wake(self: Arc<Self>) {
        self.woken.lock().unwrap().push(self.job);
    }
}

#[derive(Debug)]
pub struct World {
    pub rig: Rig,
    pub dice: Dice,
    pub loads: Vec<Load>,
    /// Whether jobs may be passed, which creates reservations. No job may be left waiting for the unreserved rest.
    pub reserves: bool,
    now: u64,
    ends: BinaryHeap<Reverse<(u64, usize)>>,
    jobs: Vec<Option<Job>>,
    vacant: Vec<usize>,
    woken: Arc<Mutex<Vec<usize>>>,
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
            woken: Arc::default(),
        }
    }

    /// Add a load that is still off.
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

    /// Submit one more job, whether the load is on or not.
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

    /// Drop the job at this index of the load's queue.
    pub fn cancel(&mut self, load: usize, index: usize) {
        if let Some(name) = self.loads[load].waiting.remove(index) {
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

    /// Return the end of the next job, in seconds.
    pub fn next_end(&self) -> Option<f64> {
        let Reverse((time, _)) = self.ends.peek()?;
        Some(seconds(*time))
    }

    /// Advance the time. `observe` is called at the end of every interval without a change, with its length in seconds.
    pub fn run_until(&mut self, end: f64, mut observe: impl FnMut(&Self, f64)) {
        let end = nanos(end);
        while let Some(&Reverse((time, name))) = self.ends.peek()
            && time <= end
        {
            self.ends.pop();
            self.pass(time, &mut observe);
            let job = self.jobs[name].take().expect("the job runs until now");
            self.vacant.push(name);
            let load = &mut self.loads[job.load];
            load.running -= 1;
            self.rig.record(load.spot, &load.cost, false);
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

    /// Collect all grants, and assert that no waiting job fits.
    fn settle(&mut self) {
        loop {
            let woken = std::mem::take(&mut *self.woken.lock().unwrap());
            if woken.is_empty() {
                break;
            }
            for name in woken {
                let load = self.poll(name);
                self.top_up(load);
            }
        }
        self.check();
    }

    fn poll(&mut self, name: usize) -> usize {
        let job = self.jobs[name]
            .as_mut()
            .expect("only existing jobs are woken");
        let State::Waiting(acquire) = &mut job.state else {
            panic!("job {name} was woken though it runs");
        };
        let waker = Waker::from(Arc::new(JobWaker {
            job: name,
            woken: Arc::clone(&self.woken),
        }));
        if let Poll::Ready(permit) = Pin::new(acquire).poll(&mut Context::from_waker(&waker)) {
            job.state = State::Running(permit.expect("no acquire fails here"));
            let load = &mut self.loads[job.load];
            let index = load.waiting.iter().position(|&other| other == name);
            load.waiting.remove(index.expect("the job waited"));
            load.waits.push(seconds(self.now - job.since));
            load.granted += 1;
            load.running += 1;
            self.rig.record(load.spot, &load.cost, true);
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
                "at {} s a job waits for free capacity: {load:?}",
                self.now(),
            );
        }
    }
}

/// Jain' fairness index: 1 if all shares are equal, 1/n if one load has everything.
#[allow(clippy::cast_precision_loss)]
pub fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (shares.len() as f64 * squares)
}

/// The value below which this fraction of the values lies.
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
