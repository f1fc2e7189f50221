//! Polls sources step by step, and handles the outcomes.
//! `view.rs` starts the polls; `pending.rs` and `yielding.rs` continue them.

use std::cell::RefMut;

use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyNone;

use super::merge::{PyMerge, wake};
use super::source::{Outcome, Running, Status};
use super::source_ref::SourceRef;
use super::state::{ErrorPolicy, State};
use super::task_context::TaskGuard;
use crate::runtime::asyncio;
use crate::runtime::asyncio::InContext;
use crate::runtime::yield_budget;
use crate::source::{AnySource, SourcePoll, async_gen};

/// The caller of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepFrom {
    /// A pull.
    Pull,
    /// A callback of the event loop, which has entered the source's context.
    Callback,
    /// The callback of the event loop for all sources that yielded.
    YieldCallback,
    /// A step of the source's own task.
    Task,
}

impl PyMerge {
    /// Poll all sources in `to_poll`. Returns `true` if the pull must yield to the event loop first.
    ///
    /// Started async generators, the most common sources, take a fast path: they are stepped in a row, and the consumer's task
    /// is restored after the last one.
    #[inline]
    pub(super) fn poll_requested(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        let this = slf.get();
        let mut guard = TaskGuard::default();
        // Declared after `guard`: dropped first, so that no borrow is open when the guard restores the task.
        let mut state = this.state.borrow(py);
        if state.to_poll.is_empty() {
            return Ok(false);
        }
        // Without an event loop no source has started.
        let event_loop = state
            .event_loop
            .as_ref()
            .map(|it| it.object.bind(py).clone());
        loop {
            let is_paid = state.use_prepaid();
            let Some((key, entry)) = state.next_to_poll(this.prefetch) else {
                return Ok(false);
            };
            if !is_paid && yield_budget::spend(py) {
                state.request_poll_first(key);
                return Ok(true);
            }
            let running = event_loop
                .as_ref()
                .and_then(|event_loop| Some((event_loop, entry.run(py)?)));
            drop(state);
            let result = if let Some((event_loop, running)) = running {
                match Self::at(slf, key).run(running, &mut guard, event_loop, true) {
                    Ok(Some(after)) => {
                        state = after;
                        continue;
                    }
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                }
            } else {
                guard.leave();
                Self::at(slf, key).step(StepFrom::Pull, None)
            };
            if let Err(error) = result {
                this.state.borrow(py).request_poll(key);
                return Err(error);
            }
            if yield_budget::take_rested() {
                return Ok(true);
            }
            state = this.state.borrow(py);
        }
    }
}

impl<'a, 'py> SourceRef<'a, 'py> {
    /// Step a generator that is marked as running. If it gave an item, its task stays the current one, and the borrowed
    /// state is returned.
    #[expect(clippy::inline_always, reason = "it is the body of two loops")]
    #[inline(always)]
    pub(super) fn run(
        self,
        (agen, task, context): Running<'py>,
        guard: &mut TaskGuard<'py>,
        event_loop: &Bound<'py, PyAny>,
        in_a_pull: bool,
    ) -> PyResult<Option<RefMut<'a, State>>> {
        let py = self.py();
        let this = self.merge.get();
        let inside = match guard.enter(event_loop, task, in_a_pull) {
            Ok(()) => InContext::enter(&context),
            Err(error) => Err(error),
        };
        let inside = match inside {
            Ok(inside) => inside,
            Err(error) => {
                self.set_paused();
                return Err(error);
            }
        };
        let stepped = async_gen::step(&agen, PyNone::get(py).as_any());
        drop(inside);
        if let Ok(async_gen::Stepped::Item(item)) = stepped {
            let mut state = self.state();
            if let Err(item) = state.accept(self.key, item, this.prefetch) {
                drop(state);
                self.on_outcome(Outcome::Item(item.unbind()))?;
                state = self.state();
            }
            return Ok(Some(state));
        }
        guard.leave();
        self.on_step(stepped)?;
        Ok(None)
    }

    /// Handle the result of a generator's step, unless it is an item.
    #[cold]
    pub(super) fn on_step(self, stepped: PyResult<async_gen::Stepped<'_>>) -> PyResult<()> {
        let adapter = self.with(|entry| entry.adapter.clone_ref(self.py()));
        let Some(adapter) = adapter else {
            return Ok(());
        };
        let AnySource::AsyncIter(foreign) = &adapter else {
            unreachable!("only a foreign source is an async generator")
        };
        let polled = foreign.get().agen_step(stepped);
        match self.on_poll(&adapter, polled)? {
            None => Ok(()),
            Some(error) => self.step(StepFrom::Pull, Some(error)),
        }
    }

    /// Handle the result of polling a source. Returns the error to throw into it, if it waits for an object that cannot
    /// be awaited.
    fn on_poll(
        self,
        adapter: &AnySource,
        polled: PyResult<SourcePoll<'_>>,
    ) -> PyResult<Option<PyErr>> {
        match polled {
            Ok(SourcePoll::Item(item)) => self.on_outcome(Outcome::Item(item.unbind()))?,
            Ok(SourcePoll::End) => self.on_end()?,
            Ok(SourcePoll::Wait(wait, object)) => return self.suspend(wait, &object),
            Err(error) => self.on_failure(adapter, error)?,
        }
        Ok(None)
    }

    /// Step a source to its next item, its end, or a wait.
    pub(super) fn step(self, from: StepFrom, mut thrown: Option<PyErr>) -> PyResult<()> {
        let py = self.py();
        let this = self.merge.get();
        loop {
            let found = self.with(|entry| {
                if matches!(entry.status, Status::Running) {
                    return None;
                }
                let status = std::mem::replace(&mut entry.status, Status::Running);
                let cancellation = entry.cancellation.take();
                let adapter = entry.adapter.clone_ref(py);
                let is_new = entry.is_foreign && entry.task_context.is_none();
                Some((adapter, entry.own_context(py), status, is_new, cancellation))
            });
            let Some((adapter, mut task_context, status, is_new, cancellation)) = found.flatten()
            else {
                return Ok(());
            };
            if is_new {
                let created = self.create_task().inspect_err(|_| self.set_paused());
                task_context = Some(created?);
            }
            let is_cancelled = || {
                task_context
                    .as_ref()
                    .is_some_and(|own| own.is_cancelled(py))
            };
            if cancellation.is_some() && thrown.is_none() && is_cancelled() {
                thrown = cancellation;
            }
            let error = thrown.take();
            let poll = || {
                Ok(match (status, error) {
                    (Status::Waiting { wait, .. }, None) => {
                        adapter.resume(*wait, Ok(&py.None().into_bound(py)), py)
                    }
                    (Status::Waiting { wait, .. }, Some(error)) => {
                        adapter.resume(*wait, Err(error), py)
                    }
                    (_, None) => match adapter.ready(py) {
                        Some(item) => Ok(SourcePoll::Item(item)),
                        None => adapter.poll_next(py),
                    },
                    (_, Some(error)) => adapter.throw(py, error),
                })
            };
            let polled = match (&task_context, from) {
                (_, StepFrom::Task) => poll(),
                (Some(task_context), _) => {
                    let event_loop = this.event_loop(py)?;
                    task_context.run(&event_loop, from, poll)
                }
                // A native source that is polled in place spends the pull's budget.
                (None, StepFrom::Pull) => {
                    let _lent = yield_budget::lend_on(py);
                    poll()
                }
                _ => poll(),
            };
            // On an error here, the source was not stepped.
            let polled = polled.inspect_err(|_| self.set_paused())?;
            thrown = self.on_poll(&adapter, polled)?;
            if thrown.is_none() {
                return Ok(());
            }
        }
    }

    pub(super) fn set_paused(self) {
        self.with(|entry| entry.status = Status::Paused);
    }

    /// Handle an item, an error that does not end its source, or its end.
    #[inline]
    pub(super) fn on_outcome(self, outcome: Outcome) -> PyResult<()> {
        let mut state = self.state();
        let Some(entry) = state.sources.get_mut(self.key) else {
            return Ok(());
        };
        entry.status = Status::Paused;
        if entry.is_closing {
            drop(state);
            drop(outcome);
            return self.finish_cancelled_step();
        }
        let futures = state.push(self.key, outcome);
        if self.merge.get().prefetch > 1 {
            state.request_poll(self.key);
        }
        drop(state);
        if !futures.is_empty() {
            wake(self.py(), futures);
        }
        Ok(())
    }

    /// Handle the end of a source: close it.
    pub(super) fn on_end(self) -> PyResult<()> {
        self.with(|entry| entry.has_ended = true);
        self.on_outcome(Outcome::End)?;
        self.close()
    }

    /// Handle an error of a source.
    pub(super) fn on_failure(self, adapter: &AnySource, error: PyErr) -> PyResult<()> {
        let py = self.py();
        let is_cancelled = asyncio::is_cancelled_error(py, &error);
        let found = self.with(|entry| {
            let task_context = entry.own_context(py);
            (entry.is_closing, entry.was_cancelled, task_context)
        });
        let (is_closing, was_cancelled, task_context) = found.unwrap_or((true, false, None));
        if is_closing {
            // The cancellation that `close` requested is no error.
            let is_ours = is_cancelled && was_cancelled;
            if task_context.is_some() && !is_ours {
                let error = self.annotate(error);
                self.record_close_error(error);
            }
            self.set_paused();
            return self.finish_cancelled_step();
        }
        let was_cancelled_from_outside =
            is_cancelled && task_context.is_some_and(|own| own.is_cancelled(py));
        let error = self.annotate(error);
        let skips = self.merge.get().error_policy == ErrorPolicy::Skip;
        if skips && error.is_instance_of::<PyException>(py) {
            self.set_paused();
            self.state().request_poll(self.key);
            let futures = self.state().wake(Some(self.key));
            wake(py, futures);
        } else {
            self.on_outcome(Outcome::Error(Box::new(error)))?;
        }
        // A source that cannot start would raise for ever. One that was cancelled from outside must not be polled again.
        if was_cancelled_from_outside || !adapter.has_begun(py) {
            return self.on_end();
        }
        Ok(())
    }

    /// Close a source whose step was running when its closing was requested.
    pub(super) fn finish_cancelled_step(self) -> PyResult<()> {
        let py = self.py();
        let task = self.with(|entry| {
            let was_cancelled = std::mem::take(&mut entry.was_cancelled);
            entry
                .is_foreign
                .then(|| entry.task(py).filter(|_| was_cancelled))
        });
        let Some(task) = task.flatten() else {
            return Ok(());
        };
        if let Some(task) = task {
            // `aclose()` must run in a task without a pending cancellation.
            task.bind(py).call_method0(intern!(py, "uncancel"))?;
        }
        self.release()
    }

    pub(super) fn can_poll(self) -> bool {
        self.with(|entry| entry.can_poll(self.merge.get().prefetch))
            .unwrap_or(false)
    }

    pub(super) fn set_cancellation(self, error: Option<PyErr>) {
        let old = self.with(|entry| std::mem::replace(&mut entry.cancellation, error));
        drop(old);
    }
}
