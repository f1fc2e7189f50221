//! The start of a call: the call of the callable, and the asyncio task of an awaitable result. `driver.rs` starts each call.

use pyo3::prelude::*;

use super::call_body::{CallBody, Progress};
use super::calls::PyConcurrentCalls;
use super::keys::Keys;
use super::partitions::Claim;
use super::state::Outcome;
use crate::asyncio_task::{Options, TaskFactory};
use crate::coroutine::Parked;
use crate::errors::RaisedError;
use crate::kernel::{Kernel, Output};
use crate::runtime::asyncio;

impl PyConcurrentCalls {
    /// Call the callable with an item. Its error is the result of the item. Return whether an asyncio task was started.
    pub(super) fn call<'py>(
        slf: &Bound<'py, Self>,
        item: &Bound<'py, PyAny>,
        factory: &TaskFactory,
    ) -> PyResult<bool> {
        let py = slf.py();
        let this = slf.get();
        // A source that ignores its cancellation may yield an item that is no longer needed.
        if this.state.borrow(py).is_closing {
            return Ok(false);
        }
        if let Some(keys) = &this.keys {
            return Self::call_by_key(slf, keys, item, factory);
        }
        let output = this.kernel.get().process(item);
        match output.map_err(|raised: RaisedError| raised.fetch(py)) {
            Ok(Output::Await(awaitable)) => {
                Self::start(slf, item, awaitable, factory)?;
                return Ok(true);
            }
            Ok(Output::Emit(value)) => this.put(py, Outcome::Value(value.unbind())),
            Ok(_) => unreachable!("map emits or awaits"),
            Err(error) => this.put(py, Self::described(py, error, &this.call_name, item)),
        }
        Ok(false)
    }

    /// Call the callable with an item, or let the item wait for its key in its asyncio task. Return whether one was started.
    #[inline(never)]
    fn call_by_key<'py>(
        slf: &Bound<'py, Self>,
        keys: &Keys,
        item: &Bound<'py, PyAny>,
        factory: &TaskFactory,
    ) -> PyResult<bool> {
        let py = slf.py();
        let this = slf.get();
        let next = this.state.borrow(py).partitions.next_number();
        let found = keys
            .of(item)
            .and_then(|key| Ok((keys.number(&key, next)?, key)));
        let (number, key) = match found {
            Ok(found) => found,
            Err(error) => {
                this.put(py, Self::described(py, error, &keys.name, item));
                return Ok(false);
            }
        };
        let mut state = this.state.borrow(py);
        let (claim, starts) = state.enter(number, &key);
        let slot = this.is_ordered.then(|| state.slots.add());
        drop(state);
        let launch = |progress| {
            this.state.borrow(py).is_calling = true;
            let body = CallBody::new(slf, item, progress, slot, Some(claim));
            Self::launch(slf, item, body, factory)?;
            Ok(true)
        };
        if !starts {
            return launch(Progress::Waiting(None));
        }
        let output = this.kernel.get().process(item);
        let outcome = match output.map_err(|raised: RaisedError| raised.fetch(py)) {
            Ok(Output::Await(awaitable)) => return launch(Progress::New(awaitable.unbind())),
            Ok(Output::Emit(value)) => Outcome::Value(value.unbind()),
            Ok(_) => unreachable!("map emits or awaits"),
            Err(error) => Self::described(py, error, &this.call_name, item),
        };
        Self::end(slf, slot, Some(claim), outcome)?;
        Ok(false)
    }

    /// Start the asyncio task of a call.
    #[inline]
    fn start<'py>(
        slf: &Bound<'py, Self>,
        item: &Bound<'py, PyAny>,
        awaitable: Bound<'py, PyAny>,
        factory: &TaskFactory,
    ) -> PyResult<()> {
        let mut state = slf.get().state.borrow(slf.py());
        let slot = slf.get().is_ordered.then(|| state.slots.add());
        state.running += 1;
        state.is_calling = true;
        drop(state);
        let progress = Progress::New(awaitable.unbind());
        let body = CallBody::new(slf, item, progress, slot, None);
        Self::launch(slf, item, body, factory)
    }

    /// Start the asyncio task of a body.
    #[inline]
    fn launch(
        slf: &Bound<'_, Self>,
        item: &Bound<'_, PyAny>,
        body: CallBody,
        factory: &TaskFactory,
    ) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let (slot, claim) = (body.slot, body.claim);
        let started = asyncio::copy_context(py).and_then(|context| {
            let options = Options {
                name: this.call_name.bind(py),
                context: &context,
            };
            factory.start(py, body, &options)
        });
        let is_running = std::mem::take(&mut this.state.borrow(py).is_calling);
        match started {
            Ok(task) if is_running => this.tasks.bind(py).add(task),
            Ok(_) => Ok(()),
            Err(error) => Self::finish(slf, slot, claim, Err(error), item, None),
        }
    }

    /// Return the wait of an item for its key; `None` if it has its call.
    pub(super) fn wait_for_key(&self, py: Python<'_>, claim: Claim) -> PyResult<Option<Parked>> {
        if !self.state.borrow(py).partitions.is_waiting(claim) {
            return Ok(None);
        }
        let parked = Parked::new(py)?;
        let mut state = self.state.borrow(py);
        // It may have got its call while the future was made.
        let Some(waiting) = state.partitions.waiting_item(claim) else {
            return Ok(None);
        };
        waiting.waker = Some(parked.waker());
        Ok(Some(parked))
    }
}
