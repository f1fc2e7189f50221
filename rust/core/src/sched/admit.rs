//! What becomes of an ask: granted at once, refused for ever, or put into a line.

use super::dispatch::Fit;
use super::lease::Held;
use super::line::{Stage, Waiter, Wants};
use super::pool::Bound;
use super::state::State;
use super::{AcquireError, AlarmId, Amount, Ask, PermitId};
use crate::sync::{Key, WakeList};
use std::task::Waker;

/// What became of an ask, or of a waiter.
#[derive(Debug)]
pub(super) enum Answer {
    /// This lease is its own.
    Granted(Key),
    Never(AcquireError),
    /// It waits, under this key.
    Waits(Key),
}

impl State {
    /// Refuses an ask that could never be granted; else the node's place.
    pub(super) fn check_ask(&self, ask: &Ask) -> Result<u32, AcquireError> {
        let node = self.find_node(ask.node.key).ok_or(AcquireError::Closed)?;
        if self.nodes.at(node).is_closed() {
            return Err(AcquireError::Closed);
        }
        for &(resource, _) in ask.cost.parts() {
            let is_limited = |at| {
                let pool = self.nodes.at(at).pool(resource);
                pool.is_some_and(|pool| pool.largest().is_some())
            };
            if !self.path(node).any(is_limited) {
                return Err(AcquireError::UnknownResource {
                    resource,
                    known: self.known(node),
                });
            }
        }
        if let Some((at, resource, ceiling)) = self.above(node, &ask.cost, |pool| pool.ceiling) {
            return Err(AcquireError::AboveCeiling {
                node: self.id_of(at),
                resource,
                ceiling: Amount::raw(ceiling),
            });
        }
        let left = |pool: &super::pool::Pool| match pool.bound {
            Bound::Budget { total, spent } => Some(total.saturating_sub(spent)),
            _ => None,
        };
        if let Some((at, resource, left)) = self.above(node, &ask.cost, left) {
            return Err(AcquireError::BudgetExhausted {
                node: self.id_of(at),
                resource,
                left: Amount::raw(left),
            });
        }
        Ok(node)
    }

    /// Puts an ask into its line and grants whatever that allows; first of all itself, if it fits and is next.
    ///
    /// It takes the waker only if it waits, for no waker may be dropped under the lock.
    pub(super) fn ask(
        &mut self,
        ask: &Ask,
        waker: &mut Option<Waker>,
        wakes: &mut WakeList,
    ) -> Answer {
        let checked = self.check_ask(ask);
        let node = match checked {
            Ok(node) => node,
            Err(error) => return Answer::Never(error),
        };
        if let Some(error) = self.would_deadlock(node, ask) {
            return Answer::Never(error);
        }
        self.read_clock();
        let waiter = self.queue(node, ask, wakes);
        self.answer_or_wait(waiter, waker)
    }

    fn queue(&mut self, node: u32, ask: &Ask, wakes: &mut WakeList) -> u32 {
        // What has become ready before it came is for those who were here.
        self.dispatch(wakes);
        let rank = self.next_rank(ask.priority);
        let (cost, wants) = (ask.cost.clone(), Wants::New(ask.owner));
        let waiter = self.join(Waiter::new(node, rank, cost, wants, ask.alarm));
        self.dispatch(wakes);
        waiter
    }

    /// Grants an ask if that needs no waiting: the answer that [`ask`](Self::ask) would have at once.
    pub(super) fn try_ask(
        &mut self,
        ask: &Ask,
        wakes: &mut WakeList,
    ) -> Result<Option<Key>, AcquireError> {
        let node = self.check_ask(ask)?;
        self.read_clock();
        // What has become ready before it came is for those who were here.
        self.dispatch(wakes);
        if self.fit(node, &ask.cost, None, None) != Fit::Fits {
            return Ok(None);
        }
        // It fits, but those before it in its line may not.
        let waiter = self.queue(node, ask, wakes);
        match self.answer_at(waiter) {
            Answer::Granted(lease) => Ok(Some(lease)),
            Answer::Never(error) => Err(error),
            Answer::Waits(key) => {
                self.withdraw(key, wakes);
                Ok(None)
            }
        }
    }

    /// Takes the place of a suspended lease in the line for its slots.
    pub(super) fn ask_again(
        &mut self,
        lease: Key,
        alarm: Option<AlarmId>,
        waker: &mut Option<Waker>,
        wakes: &mut WakeList,
    ) -> Answer {
        let Some(record) = self.leases.get(lease) else {
            return Answer::Never(AcquireError::Closed);
        };
        let node = record.node;
        if record.held != Held::No || self.nodes.at(node).is_closed() {
            return Answer::Never(AcquireError::Closed);
        }
        self.read_clock();
        let Some(cost) = self.slots_of(lease.index()) else {
            self.take_slots(lease.index(), Held::Yes);
            return Answer::Granted(lease);
        };
        let rank = self.next_rank(0);
        let waiter = self.join(Waiter::new(node, rank, cost, Wants::Again(lease), alarm));
        self.leases.at_mut(lease.index()).held = Held::Resuming(waiter);
        self.dispatch(wakes);
        self.answer_or_wait(waiter, waker)
    }

    /// What became of a waiter; if it was answered, its record goes. `None` if that went before.
    pub(super) fn answer(&mut self, key: Key) -> Option<Answer> {
        let record = self.waiters.get(key)?;
        if !matches!(record.stage, Stage::Granted(_) | Stage::Failed(_)) {
            return Some(Answer::Waits(key));
        }
        let record = self.waiters.remove(key)?;
        Some(match record.stage {
            Stage::Granted(lease) => Answer::Granted(match record.resumes() {
                None => self.leases.key_at(lease),
                Some(key) => {
                    // It may have been released meanwhile.
                    if let Some(lease) = self.leases.get_mut(key) {
                        lease.held = Held::Yes;
                    }
                    key
                }
            }),
            Stage::Failed(error) => Answer::Never(*error),
            _ => unreachable!("it was answered"),
        })
    }

    /// The same of a waiter that has just been put into its line. Only if it has to wait does it get the waker: to be woken by
    /// one's own call would be once too often.
    fn answer_or_wait(&mut self, waiter: u32, waker: &mut Option<Waker>) -> Answer {
        let answer = self.answer_at(waiter);
        if let Answer::Waits(_) = answer {
            self.waiters.at_mut(waiter).waker = waker.take();
        }
        answer
    }

    /// The same of a waiter that has just been put into its line.
    fn answer_at(&mut self, waiter: u32) -> Answer {
        let key = self.waiters.key_at(waiter);
        self.answer(key).expect("it has just joined")
    }

    /// A waiter is no more; a grant that it had not collected is annulled. What comes back is to be dropped unlocked.
    pub(super) fn withdraw(&mut self, key: Key, wakes: &mut WakeList) -> Option<Waker> {
        match self.waiters.get(key)?.stage {
            Stage::Granted(lease) => {
                self.read_clock();
                let record = self.waiters.remove(key).expect("it was here above");
                self.annul(lease, record.resumes(), wakes);
                self.dispatch(wakes);
                return record.waker;
            }
            Stage::Failed(_) => {}
            _ => {
                self.read_clock();
                self.leave(key.index());
                self.end_resuming(self.waiters.at(key.index()).resumes());
                self.dispatch(wakes);
            }
        }
        let record = self.waiters.remove(key).expect("it was here above");
        record.waker
    }

    /// A lease that was to be taken again is suspended as before.
    pub(super) fn end_resuming(&mut self, lease: Option<Key>) {
        if let Some(lease) = lease.and_then(|lease| self.leases.get_mut(lease)) {
            lease.held = Held::No;
        }
    }

    /// Whether a waiter waits for what its own owner holds, and for ever.
    fn would_deadlock(&self, node: u32, ask: &Ask) -> Option<AcquireError> {
        let leases = self.leases_of(ask.owner?);
        if leases.is_empty() {
            return None;
        }
        for at in self.path(node) {
            for &(resource, amount) in ask.cost.parts() {
                let Some(pool) = self.nodes.at(at).pool(resource) else {
                    continue;
                };
                let Bound::Slots(limit) = pool.bound else {
                    continue;
                };
                let limit = if limit > 0 {
                    limit
                } else {
                    pool.ceiling.unwrap_or(u64::MAX)
                };
                let mut held = 0;
                let mut latest = None;
                for &lease in &leases {
                    let record = self.leases.at(lease);
                    let part = record.cost.get(resource).as_micros();
                    if part > 0 && record.held.has_slots() && self.is_below(record.node, at) {
                        held += part;
                        latest = latest.or(Some(lease));
                    }
                }
                if let Some(lease) = latest
                    && held + amount.as_micros() > limit
                {
                    return Some(AcquireError::WouldDeadlock {
                        node: self.id_of(at),
                        resource,
                        limit: Amount::raw(limit),
                        held: Amount::raw(held),
                        permit: PermitId(self.leases.key_at(lease)),
                    });
                }
            }
        }
        None
    }
}
