//! Runs the real tree and the model side by side through one list of operations.

use crate::common::timer::Timer;
use crate::model::{Claim, Lease, Model, Request, Waiter, WaiterState};
use crate::op::{Amounts, Limits, Op};
use crate::watch::Refusal;
use headrace_core::Tree;
use headrace_core::capacity::{
    AcquireError, AcquireRequest, Amount, Cost, ManualClock, OwnerId, Permit, PermitError,
    ResourceId, Settings, Time,
};
use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

pub const MILLI: u64 = 1_000_000;

/// A waker that logs its waiter's name.
struct LogWaker {
    name: u64,
    log: Arc<Mutex<Vec<u64>>>,
}

impl Wake for LogWaker {
    fn wake(self: Arc<Self>) {
        self.log.lock().unwrap().push(self.name);
    }
}

#[derive(Debug)]
pub struct Run {
    pub tree: Arc<Tree>,
    clock: Arc<ManualClock>,
    pub resources: [ResourceId; 4],
    pub timers: [Timer; 2],
    pub log: Arc<Mutex<Vec<u64>>>,
    pub model: Model,
    next_name: u64,
    /// The names of all grants, in order.
    grants: Vec<u64>,
}

impl Run {
    /// Return a run with this lateness in milliseconds and this number of passes.
    pub fn new((lateness, passes): (u64, u32), nodes: Vec<(usize, Limits, u32)>) -> Self {
        let clock = Arc::new(ManualClock::new());
        let tree = Tree::new(Settings {
            lateness: Duration::from_millis(lateness),
            passes,
            ..Settings::with_clock(Arc::clone(&clock) as _)
        });
        let resources = ["slots", "memory", "calls", "money"].map(|name| tree.resource(name));
        let timers = [(); 2].map(|()| Timer::new(&tree));
        let mut run = Self {
            tree,
            clock,
            resources,
            timers,
            log: Arc::default(),
            model: Model {
                lateness: lateness * MILLI,
                passes: passes.into(),
                ..Model::default()
            },
            next_name: 0,
            grants: Vec::new(),
        };
        for (parent, limits, weight) in nodes {
            run.add(parent, limits, weight);
        }
        run
    }

    /// Run all operations, drain the tree, and return the names of all grants in order.
    pub fn play(self, ops: &[Op]) -> Vec<u64> {
        // On failure nothing is cleaned up: the broken state would only panic again.
        let mut run = ManuallyDrop::new(self);
        for op in ops {
            run.apply(*op);
            run.check();
        }
        run.drain();
        ManuallyDrop::into_inner(run).grants
    }

    pub fn apply(&mut self, op: Op) {
        let (nodes, waiters) = (self.model.nodes.len(), self.model.waiters.len());
        let leases = self.model.leases.len();
        match op {
            Op::Add(parent, limits, weight) => self.add(parent, limits, weight),
            Op::Acquire(node, cost, priority, owner) => {
                self.acquire(node % nodes, cost, priority, owner);
            }
            Op::Try(node, cost, priority) => self.try_acquire(node % nodes, cost, priority),
            Op::Poll(index) if waiters > 0 => self.poll(index % waiters),
            Op::Cancel(index) if waiters > 0 => self.cancel(index % waiters),
            Op::Release(index) if leases > 0 => self.release(index % leases, index % 2 == 0),
            Op::Settle(index, actual) if leases > 0 => self.settle(index % leases, actual),
            Op::Suspend(index) if leases > 0 => self.suspend(index % leases),
            Op::Resume(index) if leases > 0 => self.resume(index % leases),
            Op::Pass(millis) => self.pass(self.model.now + millis * MILLI),
            Op::FireAlarm(late) => {
                let armed = self.timers.iter().filter_map(|timer| timer.armed).min();
                if let Some(time) = armed {
                    self.pass(time.as_nanos().max(self.model.now) + late * 1_000);
                    self.timers.iter_mut().for_each(Timer::arm);
                }
            }
            Op::Remove(node)
            | Op::Resize(node, ..)
            | Op::Reweigh(node, _)
            | Op::Floor(node, _)
            | Op::Pause(node)
            | Op::Unpause(node)
            | Op::CoolDown(node, _)
            | Op::Close(node) => self.change(node % nodes, op),
            // There is no waiter or permit to select.
            _ => {}
        }
    }

    fn claim(&mut self, node: usize, cost: Amounts, priority: i32, owner: Option<u64>) -> Claim {
        self.next_name += 1;
        Claim {
            name: self.next_name,
            node,
            cost,
            priority,
            since: self.model.now,
            owner,
        }
    }

    fn ask(&self, claim: &Claim) -> Option<AcquireRequest> {
        let Amounts {
            slots,
            memory,
            calls,
            money,
        } = claim.cost;
        let amounts = [slots, memory, calls, money].map(Amount::units);
        let cost = Cost::new(self.resources.into_iter().zip(amounts)).ok()?;
        let ask =
            AcquireRequest::new(self.model.nodes[claim.node].id, cost).priority(claim.priority);
        Some(match claim.owner {
            Some(owner) => ask.owner(OwnerId(owner)),
            None => ask,
        })
    }

    fn acquire(&mut self, node: usize, cost: Amounts, priority: i32, owner: Option<u64>) {
        let claim = self.claim(node, cost, priority, owner);
        let Some(ask) = self.ask(&claim) else {
            return;
        };
        let alarm = usize::try_from(claim.name % 3)
            .ok()
            .filter(|&alarm| alarm < 2);
        let ask = match alarm {
            Some(alarm) => ask.alarm(self.timers[alarm].id()),
            None => ask,
        };
        let (refusals, must) = self.model.refusals(&claim);
        let checked = self.tree.check_request(&ask);
        watch_refusal(&claim, checked.as_ref().err(), &refusals, must);
        let mut request = Request::Acquire(self.tree.acquire(ask));
        let (may_deadlock, must_deadlock) = self.model.deadlock(&claim);
        match poll_request(&mut request, claim.name, &self.log) {
            Poll::Pending => {
                assert!(!must, "{claim:?} waits, despite {refusals:?}");
                assert!(!must_deadlock, "{claim:?} waits for its own owner");
                self.wait(claim, request, alarm);
            }
            Poll::Ready(Ok(permit)) => {
                assert!(!must, "{claim:?} was granted, despite {refusals:?}");
                self.granted(claim, false);
                self.lease(claim, permit.expect("an acquire returns a permit"));
            }
            Poll::Ready(Err(error)) => {
                let deadlock = Refusal::from(&error) == Refusal::Deadlock && may_deadlock;
                if !deadlock {
                    watch_refusal(&claim, Some(&error), &refusals, must);
                }
            }
        }
    }

    fn try_acquire(&mut self, node: usize, cost: Amounts, priority: i32) {
        let claim = self.claim(node, cost, priority, None);
        let Some(ask) = self.ask(&claim) else {
            return;
        };
        let (refusals, must) = self.model.refusals(&claim);
        let found = self.tree.try_acquire(ask);
        watch_refusal(&claim, found.as_ref().err(), &refusals, must);
        match found {
            Ok(Some(permit)) => {
                self.granted(claim, true);
                self.lease(claim, permit);
            }
            Ok(None) => {
                let model = &self.model;
                let alone = model
                    .waiters
                    .iter()
                    .all(|waiter| waiter.state != WaiterState::Waits);
                let fits = model.lacks(&model.totals(), &claim).is_empty()
                    && model.is_owed(&claim, model.now)
                    && !model.is_paused(claim.node);
                assert!(
                    !(alone && fits),
                    "{claim:?} was not granted, although nothing waits"
                );
            }
            Err(_) => {}
        }
    }

    fn wait(&mut self, claim: Claim, request: Request, alarm: Option<usize>) {
        self.model.waiters.push(Waiter {
            claim,
            request,
            state: WaiterState::Waits,
            alarm,
            seen: 0,
            passed: 0,
        });
    }

    pub fn granted(&mut self, claim: Claim, tried: bool) {
        self.model.watch_grant(&claim, tried);
        let now = self.model.now;
        self.model
            .for_rates(&claim, |log, calls| log.admit(claim.name, now, calls));
        self.grants.push(claim.name);
    }

    pub fn lease(&mut self, claim: Claim, permit: Permit) {
        assert_eq!(permit.node(), self.model.nodes[claim.node].id);
        self.model.leases.push(Lease {
            claim,
            permit,
            suspended: false,
            settled: false,
        });
    }

    /// Poll a waiter: it must be pending, or get the result that it was woken for.
    pub fn poll(&mut self, index: usize) {
        let waiter = &mut self.model.waiters[index];
        let polled = poll_request(&mut waiter.request, waiter.claim.name, &self.log);
        let (state, claim) = (waiter.state, waiter.claim);
        match (state, polled) {
            (WaiterState::Waits, Poll::Pending) => {}
            (WaiterState::Refused, Poll::Ready(Err(error))) => {
                let reason = Refusal::from(&error);
                assert!(
                    matches!(reason, Refusal::Closed | Refusal::Exhausted),
                    "{error:?}"
                );
                self.model.waiters.remove(index);
            }
            (WaiterState::Granted, Poll::Ready(Ok(permit))) => {
                let waiter = self.model.waiters.remove(index);
                match (waiter.request, permit) {
                    (Request::Acquire(_), Some(permit)) => self.lease(claim, permit),
                    (Request::Resume(name, _), None) => {
                        let mut leases = self.model.leases.iter_mut();
                        let lease = leases.find(|lease| lease.claim.name == name);
                        lease.expect("it was suspended").suspended = false;
                    }
                    (request, permit) => panic!("{request:?} returned {permit:?}"),
                }
            }
            (state, polled) => panic!("{claim:?} in state {state:?} returned {polled:?}"),
        }
    }

    fn cancel(&mut self, index: usize) {
        let waiter = self.model.waiters.remove(index);
        if waiter.state == WaiterState::Granted {
            // As if it had never been granted.
            self.grants.retain(|&name| name != waiter.claim.name);
            let now = self.model.now;
            self.model.for_rates(&waiter.claim, |log, calls| {
                log.settle(waiter.claim.name, now, calls, 0);
            });
        }
        drop(waiter);
    }

    fn release(&mut self, index: usize, by_drop: bool) {
        let lease = self.model.leases.remove(index);
        for node in self.model.path(lease.claim.node).collect::<Vec<_>>() {
            if let Some(money) = &mut self.model.nodes[node].money {
                money.spent += lease.claim.cost.money;
            }
        }
        if !by_drop {
            lease.permit.release();
            assert!(lease.permit.is_released());
            lease.permit.release();
        }
        let name = lease.claim.name;
        drop(lease.permit);
        // A resume of this permit has ended with it.
        let resumes =
            |waiter: &Waiter| matches!(waiter.request, Request::Resume(of, _) if of == name);
        self.model.waiters.retain(|waiter| !resumes(waiter));
        self.log.lock().unwrap().retain(|&woken| {
            self.model
                .waiters
                .iter()
                .any(|waiter| waiter.claim.name == woken)
        });
    }

    fn settle(&mut self, index: usize, mut actual: Amounts) {
        let lease = &self.model.leases[index];
        let claim = lease.claim;
        // Slots can only decrease, except where the settlement must fail. Only held resources can be settled.
        if claim.cost.calls == 0 {
            actual.calls = 0;
        }
        if claim.cost.money == 0 {
            actual.money = 0;
        }
        if claim.cost.slots == 0 {
            actual.slots = 0;
        }
        if claim.cost.memory == 0 {
            actual.memory = 0;
        }
        let grows = actual.slots > claim.cost.slots || actual.memory > claim.cost.memory;
        let mut parts = Vec::new();
        let each = |cost: Amounts| [cost.slots, cost.memory, cost.calls, cost.money];
        let (all, amounts) = (each(claim.cost), each(actual));
        for (resource, (amount, held)) in
            self.resources.into_iter().zip(amounts.into_iter().zip(all))
        {
            if held > 0 {
                parts.push((resource, Amount::units(amount)));
            }
        }
        match lease.permit.settle(&parts) {
            Ok(()) => {
                assert!(!grows, "slots grew: {claim:?}");
                let lease = &mut self.model.leases[index];
                lease.claim.cost = actual;
                // Slots that were granted again but not collected are its own already.
                let again = self.model.waiters.iter_mut().find(
                    |waiter| matches!(waiter.request, Request::Resume(name, _) if name == claim.name),
                );
                if let Some(waiter) = again {
                    assert_eq!(
                        waiter.state,
                        WaiterState::Granted,
                        "settled while it waits: {claim:?}"
                    );
                    waiter.claim.cost.slots = actual.slots;
                    waiter.claim.cost.memory = actual.memory;
                }
                let lease = &mut self.model.leases[index];
                lease.settled |= claim.cost.money > 0;
                let now = self.model.now;
                self.model.for_rates(&claim, |log, calls| {
                    log.settle(claim.name, now, calls, actual.calls);
                });
            }
            Err(PermitError::Grows(_)) => assert!(grows, "{claim:?} settles to {actual:?}"),
            Err(PermitError::Suspended) => assert!(lease.suspended, "{claim:?}"),
            Err(error) => panic!("{claim:?} settles to {actual:?}: {error}"),
        }
    }

    fn suspend(&mut self, index: usize) {
        let lease = &mut self.model.leases[index];
        let done = lease.permit.suspend();
        assert_eq!(done.is_ok(), !lease.suspended);
        lease.suspended = true;
    }

    fn resume(&mut self, index: usize) {
        let lease = &self.model.leases[index];
        let of = lease.claim;
        let mut names = self.model.waiters.iter().map(|waiter| &waiter.request);
        if names.any(|request| matches!(request, Request::Resume(name, _) if *name == of.name)) {
            return;
        }
        let resume = lease.permit.resume(None);
        assert_eq!(resume.is_ok(), lease.suspended);
        let Ok(resume) = resume else {
            return;
        };
        let cost = Amounts {
            slots: of.cost.slots,
            memory: of.cost.memory,
            ..Amounts::default()
        };
        let claim = self.claim(of.node, cost, 0, of.owner);
        let mut request = Request::Resume(of.name, resume);
        let (may_deadlock, must_deadlock) = self.model.deadlock(&claim);
        let is_closed = self.model.is_closed(of.node);
        match poll_request(&mut request, claim.name, &self.log) {
            Poll::Pending => {
                assert!(!must_deadlock, "{claim:?} waits for its own owner");
                self.wait(claim, request, None);
            }
            Poll::Ready(Ok(_)) => {
                assert!(
                    !must_deadlock,
                    "{claim:?} was granted despite the deadlock of its owner"
                );
                if claim.cost != Amounts::default() {
                    self.granted(claim, false);
                }
                self.model.leases[index].suspended = false;
            }
            Poll::Ready(Err(AcquireError::Closed)) => assert!(is_closed),
            Poll::Ready(Err(AcquireError::WouldDeadlock { .. })) => {
                assert!(may_deadlock && !is_closed, "{claim:?}");
            }
            Poll::Ready(Err(AcquireError::AboveCeiling { .. })) => {
                let (refusals, _) = self.model.refusals(&claim);
                assert!(refusals.contains(&Refusal::Ceiling), "{claim:?}");
            }
            Poll::Ready(Err(error)) => panic!("{claim:?} cannot resume: {error}"),
        }
    }

    fn pass(&mut self, time: u64) {
        self.model.now = time;
        self.clock.set(Time::from_nanos(time));
        self.tree.tick();
    }
}

/// Poll a request. Returns the permit of an acquire, and `None` for a resume.
pub fn poll_request(
    request: &mut Request,
    name: u64,
    log: &Arc<Mutex<Vec<u64>>>,
) -> Poll<Result<Option<Permit>, AcquireError>> {
    let waker = Waker::from(Arc::new(LogWaker {
        name,
        log: Arc::clone(log),
    }));
    let mut context = Context::from_waker(&waker);
    match request {
        Request::Acquire(acquire) => Pin::new(acquire).poll(&mut context).map_ok(Some),
        Request::Resume(_, resume) => Pin::new(resume).poll(&mut context).map_ok(|()| None),
    }
}

/// Compare the tree's error for an acquire with the errors that the model expects.
fn watch_refusal(claim: &Claim, error: Option<&AcquireError>, refusals: &[Refusal], must: bool) {
    match error {
        None => assert!(!must, "{claim:?} was not refused, despite {refusals:?}"),
        Some(error) => assert!(
            refusals.contains(&error.into()),
            "{claim:?} was refused by {error:?}, not by {refusals:?}",
        ),
    }
}
