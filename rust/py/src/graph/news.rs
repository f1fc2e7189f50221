//! The events of a graph and their listeners.
//!
//! Listeners and events are numbered by one counter. An event is for each listener with a lower number: those that were
//! there when it happened. So an event costs O(1) to record, whatever the number of listeners.

use std::collections::{BTreeMap, VecDeque};

use pyo3::prelude::*;

use super::node::Number;
use crate::object::gc::{Traverse, VisitError, Visitor};

/// A kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ready,
    Finished,
}

/// One event that is not delivered yet.
#[derive(Debug)]
pub(super) struct Event {
    kind: Kind,
    /// The key of the node that became ready.
    pub(super) key: Option<Py<PyAny>>,
    /// The listeners from this number on.
    pub(super) from: Number,
    /// The listeners below this number.
    below: Number,
}

/// Undelivered events, oldest first, and the listeners.
#[derive(Debug, Default)]
pub(super) struct News {
    /// The callbacks for each kind, by their numbers.
    listeners: [BTreeMap<Number, Py<PyAny>>; 2],
    events: VecDeque<Event>,
    /// Whether a caller is delivering events. It also delivers what is recorded meanwhile, so that callbacks do not nest.
    is_delivering: bool,
}

impl News {
    pub(super) fn listen(&mut self, number: Number, kind: Kind, callback: Py<PyAny>) {
        self.listeners[kind as usize].insert(number, callback);
    }

    /// Removes a listener, and gives its callback, to be dropped after the borrow.
    pub(super) fn stop(&mut self, number: Number) -> Option<Py<PyAny>> {
        let mut kinds = self.listeners.iter_mut();
        kinds.find_map(|listeners| listeners.remove(&number))
    }

    /// Records an event for all current listeners of its kind.
    pub(super) fn record(&mut self, number: Number, kind: Kind, key: Option<Py<PyAny>>) {
        self.events.push_back(Event {
            kind,
            key,
            from: 0,
            below: number,
        });
    }

    /// Records for a new listener that a node was ready before.
    pub(super) fn record_past(&mut self, listener: Number, key: Py<PyAny>) {
        self.events.push_back(Event {
            kind: Kind::Ready,
            key: Some(key),
            from: listener,
            below: listener + 1,
        });
    }

    /// Starts delivering; false if there is nothing to deliver, or a caller delivers already.
    pub(super) fn begin(&mut self) -> bool {
        let begins = !self.is_delivering && !self.events.is_empty();
        self.is_delivering |= begins;
        begins
    }

    /// The next event. With the last one delivering ends, in the same step, so that no event is left behind.
    pub(super) fn next(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        self.is_delivering = event.is_some();
        event
    }

    /// The next listener that an event is for.
    pub(super) fn listener(&self, py: Python<'_>, event: &Event) -> Option<(Number, Py<PyAny>)> {
        self.listeners[event.kind as usize]
            .range(event.from..event.below)
            .next()
            .map(|(&number, callback)| (number, callback.clone_ref(py)))
    }
}

impl Traverse for News {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        for callback in self.listeners.iter().flat_map(BTreeMap::values) {
            visit(callback)?;
        }
        for key in self.events.iter().filter_map(|event| event.key.as_ref()) {
            visit(key)?;
        }
        Ok(())
    }
}
