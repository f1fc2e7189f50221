//! The pending events of a graph, and its listeners. `state.rs` records the events; `PyGraphCore` dispatches them.
//!
//! Listeners and events are numbered by one counter. An event is dispatched to each listener with a lower number: those that
//! were registered when it happened. So recording an event costs O(1), whatever the number of listeners.

use std::collections::{BTreeMap, VecDeque};

use pyo3::prelude::*;

use super::node::Number;
use crate::object::gc::{Traverse, VisitError, Visitor, traverse};

/// A kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventKind {
    Ready,
    Finished,
}

/// One event that is not dispatched yet.
#[derive(Debug)]
pub(super) struct Event {
    kind: EventKind,
    /// The key of the node that became ready.
    pub(super) key: Option<Py<PyAny>>,
    /// The listeners from this number on.
    pub(super) from: Number,
    /// The listeners below this number.
    below: Number,
}

/// Pending events, oldest first, and the listeners.
#[derive(Debug, Default)]
pub(super) struct EventDispatcher {
    /// The callbacks for each kind, by their numbers.
    listeners: [BTreeMap<Number, Py<PyAny>>; 2],
    events: VecDeque<Event>,
    /// Whether a call is dispatching events. It also dispatches events recorded meanwhile, so that callbacks do not nest.
    is_dispatching: bool,
}

impl EventDispatcher {
    pub(super) fn listen(&mut self, number: Number, kind: EventKind, callback: Py<PyAny>) {
        self.listeners[kind as usize].insert(number, callback);
    }

    /// Remove a listener, and return its callback, to be dropped after the borrow.
    pub(super) fn stop(&mut self, number: Number) -> Option<Py<PyAny>> {
        let mut kinds = self.listeners.iter_mut();
        kinds.find_map(|listeners| listeners.remove(&number))
    }

    /// Record an event for all current listeners of its kind.
    pub(super) fn record(&mut self, number: Number, kind: EventKind, key: Option<Py<PyAny>>) {
        self.events.push_back(Event {
            kind,
            key,
            from: 0,
            below: number,
        });
    }

    /// Record for a new listener that a node is ready already.
    pub(super) fn record_past(&mut self, listener: Number, key: Py<PyAny>) {
        self.events.push_back(Event {
            kind: EventKind::Ready,
            key: Some(key),
            from: listener,
            below: listener + 1,
        });
    }

    /// Start dispatching; false if no event is pending, or another call is dispatching.
    pub(super) fn begin(&mut self) -> bool {
        let begins = !self.is_dispatching && !self.events.is_empty();
        self.is_dispatching |= begins;
        begins
    }

    /// Take the next event. If there is none, dispatching ends in the same step, so that no event is left behind.
    pub(super) fn next(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        self.is_dispatching = event.is_some();
        event
    }

    /// Return the next listener of an event.
    pub(super) fn listener(&self, py: Python<'_>, event: &Event) -> Option<(Number, Py<PyAny>)> {
        self.listeners[event.kind as usize]
            .range(event.from..event.below)
            .next()
            .map(|(&number, callback)| (number, callback.clone_ref(py)))
    }
}

traverse!(Event { key });

impl Traverse for EventDispatcher {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        let mut listeners = self.listeners.iter();
        listeners.try_for_each(|callbacks| callbacks.traverse(visit))?;
        self.events.traverse(visit)
    }
}
