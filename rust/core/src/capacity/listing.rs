//! `Holder`, `WaitingRequest` and `HeldOff`: the permits, the waiting requests and the hold-offs of a tree, one by one.
//! `rust/py/src/capacity/listing.rs` reads them for `headrace.explain()` and the warning of stuck trees.
//!
//! The lists are read in pages, each under the lock for a short time. The pages show different moments. An entry that is added or
//! removed in between may be missing.

use super::index::NIL;
use super::model::permit_record::Held;
use super::model::state::State;
use super::model::waiter::{Waiter, WaiterState, Wants};
use super::{Cost, NodeId, OwnerId, PermitId, ResourceId, Time, Tree};
use std::time::Duration;

/// The number of entries of a page.
const PAGE: usize = 256;

/// A permit.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The permit.
    pub permit: PermitId,
    /// Its node.
    pub node: NodeId,
    /// The amounts that it holds.
    pub cost: Cost,
    /// The time since the grant. `None` if the clock was not read then: without a waiter, that is so for 15 of 16 grants.
    pub held_for: Option<Duration>,
    /// Its owner.
    pub owner: Option<OwnerId>,
    /// Whether it holds its slots. False while it is suspended.
    pub has_slots: bool,
}

/// A request that waits.
#[derive(Clone, Debug)]
pub struct WaitingRequest {
    /// Its node.
    pub node: NodeId,
    /// The amounts that it requests.
    pub cost: Cost,
    /// The time since it was queued.
    pub waited: Duration,
    /// Its owner.
    pub owner: Option<OwnerId>,
    /// Whether its cost exceeds a current limit of its path.
    pub is_parked: bool,
}

/// A time before which a node grants nothing.
#[derive(Clone, Copy, Debug)]
pub struct HeldOff {
    /// The resource; `None` for all.
    pub resource: Option<ResourceId>,
    /// The remaining time.
    pub remaining: Duration,
}

impl Tree {
    /// Return the root, if there is one.
    pub fn find_root(&self) -> Option<NodeId> {
        let state = self.lock();
        (state.root != NIL).then(|| state.id_of(state.root))
    }

    /// Return a page of permits, and the start of the next page. The first page starts at 0.
    pub fn holders(&self, from: u32) -> (Vec<Holder>, Option<u32>) {
        let state = self.lock();
        let now = state.time();
        let entries = state.permits.entries_from(from);
        page(entries, |index, record| Holder {
            permit: PermitId(state.permits.key_at(index)),
            node: state.id_of(record.node),
            cost: record.cost.clone(),
            held_for: record.since.map(|since| now.since(since)),
            owner: record.owner,
            has_slots: matches!(record.held, Held::Yes | Held::Regained),
        })
    }

    /// Return a page of waiting requests, without those already granted, and the start of the next page. The first page starts at 0.
    pub fn waiters(&self, from: u32) -> (Vec<WaitingRequest>, Option<u32>) {
        let state = self.lock();
        let now = state.time();
        let entries = state.waiters.entries_from(from);
        let waiting = entries.filter(|(_, waiter)| !waiter.state.is_answered());
        page(waiting, |_, waiter| WaitingRequest {
            node: state.id_of(waiter.node),
            cost: waiter.cost.clone(),
            waited: now.since(state.queued_at(waiter)),
            owner: owner(&state, waiter.wants),
            is_parked: matches!(waiter.state, WaiterState::Parked),
        })
    }

    /// Return the times before which a node grants nothing, without those of its ancestors.
    pub fn held_off(&self, node: NodeId) -> Vec<HeldOff> {
        let state = self.lock_for(node);
        let now = state.time();
        let Some(record) = state.nodes.get(node.key) else {
            return Vec::new();
        };
        let all = std::iter::once((None, record.not_before));
        let resources = record.resources.iter();
        all.chain(resources.map(|resource| (Some(resource.id), resource.not_before)))
            .filter(|&(_, until)| now < until)
            .map(|(resource, until)| HeldOff {
                resource,
                remaining: until.since(now),
            })
            .collect()
    }
}

impl State {
    /// Return the time at which a waiter was queued, from its rank.
    fn queued_at(&self, waiter: &Waiter) -> Time {
        let ahead = i64::from(waiter.priority).saturating_mul(self.ageing);
        let queued = waiter.rank.due.saturating_add(ahead);
        Time::from_nanos(u64::try_from(queued).unwrap_or_default())
    }
}

fn owner(state: &State, wants: Wants) -> Option<OwnerId> {
    match wants {
        Wants::New(owner) => owner,
        Wants::Again(permit) => state.permits.get(permit)?.owner,
    }
}

fn page<'a, T: 'a, R>(
    entries: impl Iterator<Item = (u32, &'a T)>,
    convert: impl Fn(u32, &'a T) -> R,
) -> (Vec<R>, Option<u32>) {
    let mut entries = entries.peekable();
    let mut made = Vec::new();
    while made.len() < PAGE
        && let Some((index, entry)) = entries.next()
    {
        made.push(convert(index, entry));
    }
    (made, entries.peek().map(|&(index, _)| index))
}
