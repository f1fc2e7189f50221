//! What becomes of an ask: granted at once, refused for ever, or put into a line.

use super::dispatch::Fit;
use crate::capacity::model::permit_record::Held;
use crate::capacity::model::resource::{Bound, Kind, Pool};
use crate::capacity::model::state::State;
use crate::capacity::model::waiter::{Stage, Waiter, Wants};
use crate::capacity::{AcquireError, AlarmId, Amount, Ask, Cost, OwnerId, PermitId};
use crate::sync::{Key, WakeList};
use std::task::Waker;

/// What became of an ask, or of a waiter.
#[derive(Debug)]
pub(in crate::capacity) enum Answer {
    /// This lease is its own.
    Granted(Key),
    Never(AcquireError),
    /// It waits, under this key.
    Waits(Key),
}

impl State {
    /// Refuses an ask that could never be granted; else the node's place.
    pub(in crate::capacity) fn check_ask(&self, ask: &Ask) -> Result<u32, AcquireError> {
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
        let left = |pool: &Pool| match pool.bound {
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
    pub(in crate::capacity) fn ask(
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
        let own = (ask.owner).and_then(|owner| self.would_deadlock(node, &ask.cost, owner));
        if let Some(error) = own {
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

    /// Grants an ask if that needs no waiting: the answer that [`request`](Self::ask) would have at once.
    pub(in crate::capacity) fn try_ask(
        &mut self,
        ask: &Ask,
        wakes: &mut WakeList,
    ) -> Result<Option<Key>, AcquireError> {
        let node = self.check_ask(ask)?;
        self.read_clock();
        // What has become ready before it came is for those who were here.
        self.dispatch(wakes);
        match self.fit(node, &ask.cost, None, None) {
            Fit::Fits => {}
            // By its priority it may come before the waiter that has the turn.
            Fit::Behind if ask.priority > 0 => {}
            _ => return Ok(None),
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

    /// Takes the place of a suspended lease in the line for its slots. Its owner asks, or else `asker`; for what is nobody's,
    /// nobody.
    pub(in crate::capacity) fn ask_again(
        &mut self,
        lease: Key,
        asker: Option<OwnerId>,
        alarm: Option<AlarmId>,
        waker: &mut Option<Waker>,
        wakes: &mut WakeList,
    ) -> Answer {
        let Some(record) = self.leases.get(lease) else {
            return Answer::Never(AcquireError::Closed);
        };
        let (node, owner) = (record.node, record.owner);
        if record.held != Held::No || self.nodes.at(node).is_closed() {
            return Answer::Never(AcquireError::Closed);
        }
        self.read_clock();
        let Some(cost) = self.slots_of(lease.index()) else {
            self.take_slots(lease.index(), Held::Yes);
            return Answer::Granted(lease);
        };
        let owner = owner.map(|owner| asker.unwrap_or(owner));
        if let Some(error) = owner.and_then(|owner| self.would_deadlock(node, &cost, owner)) {
            return Answer::Never(error);
        }
        let rank = self.next_rank(0);
        let waiter = self.join(Waiter::new(node, rank, cost, Wants::Again(lease), alarm));
        self.leases.at_mut(lease.index()).held = Held::Resuming(waiter);
        self.dispatch(wakes);
        self.answer_or_wait(waiter, waker)
    }

    /// What became of a waiter; if it was answered, its record goes. `None` if that went before.
    pub(in crate::capacity) fn answer(&mut self, key: Key) -> Option<Answer> {
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
    pub(in crate::capacity) fn withdraw(
        &mut self,
        key: Key,
        wakes: &mut WakeList,
    ) -> Option<Waker> {
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
    pub(in crate::capacity) fn end_resuming(&mut self, lease: Option<Key>) {
        if let Some(lease) = lease.and_then(|lease| self.leases.get_mut(lease)) {
            lease.held = Held::No;
        }
    }

    /// Whether a waiter waits for what its own owner holds, and for ever: for slots that it would have to give back itself, or for what
    /// only its own leases may yet prove not to need of a budget. Of others it is taken that they give back everything.
    ///
    /// Looked at when it begins to wait, and not again.
    fn would_deadlock(&self, node: u32, cost: &Cost, owner: OwnerId) -> Option<AcquireError> {
        let leases = self.leases_of(owner);
        if leases.is_empty() {
            return None;
        }
        for at in self.path(node) {
            for &(resource, amount) in cost.parts() {
                let Some(pool) = self.nodes.at(at).pool(resource) else {
                    continue;
                };
                let limit = match pool.bound {
                    Bound::Slots(0) => pool.ceiling.unwrap_or(u64::MAX),
                    Bound::Slots(limit) => limit,
                    Bound::Budget { total, spent } => total.saturating_sub(spent),
                    // Time brings what is missing.
                    Bound::Rate(_) | Bound::None => continue,
                };
                let own = leases.iter().filter_map(|&lease| {
                    let record = self.leases.at(lease);
                    let part = record.cost.get(resource).as_micros();
                    // What was taken of a budget stays taken while the slots are away.
                    let is_held = pool.kind == Kind::Budget || record.held.has_slots();
                    let counts = part > 0 && is_held && self.is_below(record.node, at);
                    counts.then_some((lease, part))
                });
                let (mut held, mut leases, mut latest) = (0_u128, 0, None);
                for (lease, part) in own {
                    held += u128::from(part);
                    leases += 1;
                    latest = latest.or(Some(lease));
                }
                if let Some(lease) = latest
                    && held + u128::from(amount.as_micros()) > u128::from(limit)
                {
                    return Some(AcquireError::WouldDeadlock {
                        node: self.id_of(at),
                        resource,
                        limit: Amount::raw(limit),
                        held: Amount::raw(u64::try_from(held).unwrap_or(u64::MAX)),
                        leases,
                        permit: PermitId(self.leases.key_at(lease)),
                        acquired: self.id_of(self.leases.at(lease).node),
                    });
                }
            }
        }
        None
    }
}
