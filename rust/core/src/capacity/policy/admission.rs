//! Admission of a request: granted at once, refused for ever, or queued. The futures in `acquire.rs` and
//! `Tree::try_take` call it.

use super::dispatch::FitResult;
use crate::capacity::model::permit_record::Held;
use crate::capacity::model::resource::{LimitState, Resource, ResourceKind};
use crate::capacity::model::state::State;
use crate::capacity::model::waiter::{Waiter, WaiterState, Wants};
use crate::capacity::{AcquireError, AcquireRequest, AlarmId, Amount, Cost, OwnerId, PermitId};
use crate::sync::{Key, WakeList};
use std::task::Waker;

/// The state of a request or of a waiter.
#[derive(Debug)]
pub(in crate::capacity) enum Answer {
    /// Granted as this permit.
    Granted(Key),
    Refused(AcquireError),
    /// Queued as this waiter.
    Queued(Key),
}

impl State {
    /// Refuse a request that can never be granted; otherwise return the index of its node.
    pub(in crate::capacity) fn check_request(
        &self,
        request: &AcquireRequest,
    ) -> Result<u32, AcquireError> {
        let node = self
            .find_node(request.node.key)
            .ok_or(AcquireError::Closed)?;
        if self.nodes.at(node).is_closed() {
            return Err(AcquireError::Closed);
        }
        for &(id, _) in request.cost.parts() {
            let is_limited = |at| {
                let resource = self.nodes.at(at).resource(id);
                resource.is_some_and(|resource| resource.largest().is_some())
            };
            if !self.path(node).any(is_limited) {
                return Err(AcquireError::UnknownResource {
                    resource: id,
                    known: self.known(node),
                });
            }
        }
        if let Some((at, id, ceiling)) =
            self.above(node, &request.cost, |resource| resource.ceiling)
        {
            return Err(AcquireError::AboveCeiling {
                node: self.id_of(at),
                resource: id,
                ceiling: Amount::raw(ceiling),
            });
        }
        let left = |resource: &Resource| match resource.limit {
            LimitState::Budget { total, spent } => Some(total.saturating_sub(spent)),
            _ => None,
        };
        if let Some((at, id, left)) = self.above(node, &request.cost, left) {
            return Err(AcquireError::BudgetExhausted {
                node: self.id_of(at),
                resource: id,
                left: Amount::raw(left),
            });
        }
        Ok(node)
    }

    /// Queue a request and grant whatever that allows, including the request itself if it fits and is next.
    ///
    /// The waker is taken only if the request waits, as no waker may be dropped under the lock.
    pub(in crate::capacity) fn submit(
        &mut self,
        request: &AcquireRequest,
        waker: &mut Option<Waker>,
        wakes: &mut WakeList,
    ) -> Answer {
        let checked = self.check_request(request);
        let node = match checked {
            Ok(node) => node,
            Err(error) => return Answer::Refused(error),
        };
        let own = (request.owner).and_then(|owner| self.would_deadlock(node, &request.cost, owner));
        if let Some(error) = own {
            return Answer::Refused(error);
        }
        self.read_clock();
        let waiter = self.queue(node, request, wakes);
        self.answer_or_wait(waiter, waker)
    }

    fn queue(&mut self, node: u32, request: &AcquireRequest, wakes: &mut WakeList) -> u32 {
        // Earlier waiters come first for quota that has become ready.
        self.dispatch(wakes);
        let mut rank = self.next_rank(request.priority);
        if let Some(order) = request.front {
            // Below any time.
            let order = i64::from(order.get());
            rank.due = i64::MIN + order;
        }
        let (cost, wants) = (request.cost.clone(), Wants::New(request.owner));
        let waiter = self.join(Waiter::new(
            node,
            rank,
            request.priority,
            cost,
            wants,
            request.alarm,
        ));
        self.dispatch(wakes);
        waiter
    }

    /// Grant a request only if [`submit`](Self::submit) would grant it at once.
    pub(in crate::capacity) fn try_submit(
        &mut self,
        request: &AcquireRequest,
        wakes: &mut WakeList,
    ) -> Result<Option<Key>, AcquireError> {
        let node = self.check_request(request)?;
        self.read_clock();
        // Earlier waiters come first for quota that has become ready.
        self.dispatch(wakes);
        match self.fit(node, &request.cost, None, None) {
            FitResult::Fits => {}
            // Its priority may put it before the head of the rate.
            FitResult::BehindHead if request.priority > 0 => {}
            _ => return Ok(None),
        }
        // It fits, but earlier waiters of its queue may not.
        let waiter = self.queue(node, request, wakes);
        match self.answer_at(waiter) {
            Answer::Granted(permit) => Ok(Some(permit)),
            Answer::Refused(error) => Err(error),
            Answer::Queued(key) => {
                self.withdraw(key, wakes);
                Ok(None)
            }
        }
    }

    /// Queue a suspended permit for its slots.
    ///
    /// The requester is its owner, or else `requester`; a permit without an owner has none.
    pub(in crate::capacity) fn resubmit(
        &mut self,
        permit: Key,
        requester: Option<OwnerId>,
        alarm: Option<AlarmId>,
        waker: &mut Option<Waker>,
        wakes: &mut WakeList,
    ) -> Answer {
        let Some(record) = self.permits.get(permit) else {
            return Answer::Refused(AcquireError::Closed);
        };
        let (node, owner) = (record.node, record.owner);
        if record.held != Held::No || self.nodes.at(node).is_closed() {
            return Answer::Refused(AcquireError::Closed);
        }
        self.read_clock();
        let Some(cost) = self.slots_of(permit.index()) else {
            self.take_slots(permit.index(), Held::Yes);
            return Answer::Granted(permit);
        };
        let owner = owner.map(|owner| requester.unwrap_or(owner));
        if let Some(error) = owner.and_then(|owner| self.would_deadlock(node, &cost, owner)) {
            return Answer::Refused(error);
        }
        let rank = self.next_rank(0);
        let waiter = self.join(Waiter::new(
            node,
            rank,
            0,
            cost,
            Wants::Again(permit),
            alarm,
        ));
        self.permits.at_mut(permit.index()).held = Held::Resuming(waiter);
        self.dispatch(wakes);
        self.answer_or_wait(waiter, waker)
    }

    /// Return the state of a waiter; an answered waiter is removed. `None` if it was removed before.
    pub(in crate::capacity) fn answer(&mut self, key: Key) -> Option<Answer> {
        let record = self.waiters.get(key)?;
        if !record.state.is_answered() {
            return Some(Answer::Queued(key));
        }
        let record = self.waiters.remove(key)?;
        Some(match record.state {
            WaiterState::Granted(permit) => Answer::Granted(match record.resumes() {
                None => self.permits.key_at(permit),
                Some(key) => {
                    // The permit may have been released meanwhile.
                    if let Some(permit) = self.permits.get_mut(key) {
                        permit.held = Held::Yes;
                    }
                    key
                }
            }),
            WaiterState::Failed(error) => Answer::Refused(*error),
            _ => unreachable!("the waiter was answered"),
        })
    }

    /// Return the state of a waiter that was just queued, and store its waker only if it waits: its own call must not wake it.
    fn answer_or_wait(&mut self, waiter: u32, waker: &mut Option<Waker>) -> Answer {
        let answer = self.answer_at(waiter);
        if let Answer::Queued(_) = answer {
            self.waiters.at_mut(waiter).waker = waker.take();
        }
        answer
    }

    /// Return the state of a waiter that was just queued.
    fn answer_at(&mut self, waiter: u32) -> Answer {
        let key = self.waiters.key_at(waiter);
        self.answer(key).expect("the waiter was just queued")
    }

    /// Remove a waiter, and annul its grant if it was not collected. Drop the returned waker after unlocking.
    pub(in crate::capacity) fn withdraw(
        &mut self,
        key: Key,
        wakes: &mut WakeList,
    ) -> Option<Waker> {
        match self.waiters.get(key)?.state {
            WaiterState::Granted(permit) => {
                self.read_clock();
                let record = self
                    .waiters
                    .remove(key)
                    .expect("the waiter was found above");
                self.annul(permit, record.resumes(), wakes);
                self.dispatch(wakes);
                return record.waker;
            }
            WaiterState::Failed(_) => {}
            _ => {
                self.read_clock();
                self.leave(key.index());
                self.end_resuming(self.waiters.at(key.index()).resumes());
                self.dispatch(wakes);
            }
        }
        let record = self
            .waiters
            .remove(key)
            .expect("the waiter was found above");
        record.waker
    }

    /// Mark a permit whose resumption has ended as suspended again.
    pub(in crate::capacity) fn end_resuming(&mut self, permit: Option<Key>) {
        if let Some(permit) = permit.and_then(|permit| self.permits.get_mut(permit)) {
            permit.held = Held::No;
        }
    }

    /// Return whether a request would wait for ever for capacity that its own owner holds: slots that only the owner
    /// can release, or a budget that only the owner's permits may turn out not to need. Other owners are assumed to
    /// release everything.
    ///
    /// Checked when the wait begins, and not again.
    fn would_deadlock(&self, node: u32, cost: &Cost, owner: OwnerId) -> Option<AcquireError> {
        let permits = self.permits_of(owner);
        if permits.is_empty() {
            return None;
        }
        for at in self.path(node) {
            for &(id, amount) in cost.parts() {
                let Some(resource) = self.nodes.at(at).resource(id) else {
                    continue;
                };
                let limit = match resource.limit {
                    LimitState::Slots(0) => resource.ceiling.unwrap_or(u64::MAX),
                    LimitState::Slots(limit) => limit,
                    LimitState::Budget { total, spent } => total.saturating_sub(spent),
                    // Time brings the missing quota.
                    LimitState::Rate(_) | LimitState::None => continue,
                };
                let own = permits.iter().filter_map(|&permit| {
                    let record = self.permits.at(permit);
                    let part = record.cost.get(id).as_micros();
                    // A suspended permit keeps its budget.
                    let is_held = resource.kind == ResourceKind::Budget || record.held.has_slots();
                    let counts = part > 0 && is_held && self.is_below(record.node, at);
                    counts.then_some((permit, part))
                });
                let (mut held, mut permits, mut latest) = (0_u128, 0, None);
                for (permit, part) in own {
                    held += u128::from(part);
                    permits += 1;
                    latest = latest.or(Some(permit));
                }
                if let Some(permit) = latest
                    && held + u128::from(amount.as_micros()) > u128::from(limit)
                {
                    return Some(AcquireError::WouldDeadlock {
                        node: self.id_of(at),
                        resource: id,
                        limit: Amount::raw(limit),
                        held: Amount::raw(u64::try_from(held).unwrap_or(u64::MAX)),
                        permits,
                        permit: PermitId(self.permits.key_at(permit)),
                        acquired: self.id_of(self.permits.at(permit).node),
                    });
                }
            }
        }
        None
    }
}
