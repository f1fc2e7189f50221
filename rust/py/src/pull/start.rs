//! Starting a pull: acquire the lock and the pipeline, or wait for them. `awaitable.rs` and `terminal.rs` call it.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::awaitable::{Pull, PullPhase, closed};
use super::link::PyPullLink;
use super::pipeline::Pipeline;
use super::state::{Phase, Start};
use crate::coroutine::{Parked, Step};
use crate::errors::RaisedError;
use crate::runtime::yield_budget;

impl Pull {
    /// Acquire the lock and the pipeline if both are free.
    #[inline]
    pub(super) fn start(link: &Bound<'_, PyPullLink>) -> Result<Start, RaisedError> {
        let py = link.py();
        let this = link.get();
        this.home()
            .check(py, "stream")
            .map_err(|error| RaisedError::set(py, error))?;
        let started = this.state.borrow(py).start(py);
        Ok(started)
    }

    /// Run the first step without a pipeline that is ready to run.
    #[inline]
    pub(super) fn begin_without_pipeline<'py>(
        &mut self,
        link: &Bound<'py, PyPullLink>,
        start: Start,
    ) -> Result<Step<'py>, RaisedError> {
        match start {
            Start::Buffer(buffer) => self.take_from_buffer(link, buffer),
            Start::Pipeline(_) | Start::Slow => {
                RaisedError::set_from(link.py(), self.begin_slowly(link))
            }
        }
    }

    /// Run the first step where a check failed, or where the pipeline is not built yet.
    #[cold]
    fn begin_slowly<'py>(&mut self, link: &Bound<'py, PyPullLink>) -> PyResult<Step<'py>> {
        let py = link.py();
        let state = link.get().state.borrow(py);
        if state.phase != Phase::Open {
            // A pull that has yielded once was pending when the link was closed.
            let was_pending = self.has_yielded && state.phase == Phase::Closed;
            drop(state);
            return match PyPullLink::find_buffer(link)? {
                Some(buffer) if was_pending => self.deliver_buffer_end(link, buffer.get()),
                None if was_pending => Err(closed(py)),
                _ => self.deliver_end(py),
            };
        }
        if state.running {
            drop(state);
            PyPullLink::reject_own_source(link)?;
            return Err(PyRuntimeError::new_err(
                "this stream is being pulled already, inside its own callable or by another thread; give each a branch of its tee()",
            ));
        }
        drop(state);
        if let Some(buffer) = PyPullLink::find_buffer(link)? {
            if let Some(item) = link.get().take_returned(py) {
                return self.deliver(item);
            }
            return self
                .take_from_buffer(link, buffer)
                .map_err(|raised| raised.fetch(py));
        }
        let this = link.get();
        this.bind_loop(py)?;
        // Perhaps only the thread was unknown.
        let started = this.state.borrow(py).start(py);
        if let Start::Pipeline(pipeline) = started {
            return self.run_on(link, pipeline);
        }
        let taken = this.state.borrow(py).lock.try_acquire();
        if taken {
            self.build(link)
        } else {
            self.queue(link)
        }
    }

    /// Wait in the FIFO queue.
    #[cold]
    fn queue<'py>(&mut self, link: &Bound<'py, PyPullLink>) -> PyResult<Step<'py>> {
        let py = link.py();
        link.get().bind_loop(py)?;
        PyPullLink::reject_own_source(link)?;
        let parked = Parked::new(py)?;
        self.waiter = link.get().state.borrow(py).lock.enqueue(parked.waker());
        self.park(link, parked, PullPhase::Queued)
    }

    /// Suspend the pull until the mailbox entry is woken.
    fn park<'py>(
        &mut self,
        link: &Bound<'py, PyPullLink>,
        parked: Parked,
        phase: fn(Box<Parked>) -> PullPhase,
    ) -> PyResult<Step<'py>> {
        let future = parked.hand_up(link.py())?;
        self.suspend_in(link, phase(Box::new(parked)));
        yield_budget::renew();
        Ok(Step::Yield(future))
    }

    /// Build the pipeline and run it for the first time. This pull owns the lock.
    #[cold]
    pub(super) fn build<'py>(&mut self, link: &Bound<'py, PyPullLink>) -> PyResult<Step<'py>> {
        let py = link.py();
        let this = link.get();
        let built = this.bind_loop(py).and_then(|()| {
            if let Some(parked) = this.detach(py)? {
                return Ok(Err(parked));
            }
            // Building may run Python code (a property of a subclass). The flag prevents a second
            // build.
            this.state.borrow(py).running = true;
            let pipeline = Pipeline::build(link);
            this.state.borrow(py).running = false;
            pipeline.map(Ok)
        });
        match built {
            Ok(Ok(pipeline)) => self.run(link, Box::new(pipeline)),
            Ok(Err(parked)) => self.park(link, parked, PullPhase::Detaching),
            Err(error) => {
                self.leave(link);
                Err(error)
            }
        }
    }

    fn run<'py>(
        &mut self,
        link: &Bound<'py, PyPullLink>,
        pipeline: Box<Pipeline>,
    ) -> PyResult<Step<'py>> {
        link.get().state.borrow(link.py()).running = true;
        self.run_on(link, pipeline)
    }

    /// Run the pipeline, which is marked as running already.
    fn run_on<'py>(
        &mut self,
        link: &Bound<'py, PyPullLink>,
        mut pipeline: Box<Pipeline>,
    ) -> PyResult<Step<'py>> {
        let outcome = pipeline.advance_boxed(link.py(), link, None);
        self.finish(link, pipeline, outcome, None)
    }

    /// Continue after the lock was handed over, or the link was closed.
    pub(super) fn on_turn<'py>(&mut self, link: &Bound<'py, PyPullLink>) -> PyResult<Step<'py>> {
        let py = link.py();
        let (phase, mine) = {
            let state = link.get().state.borrow(py);
            (state.phase, state.lock.is_owner(self.waiter))
        };
        match (phase, mine) {
            (Phase::Closed, _) => {
                self.leave(link);
                Err(closed(py))
            }
            (Phase::Ended, _) => {
                self.leave(link);
                self.deliver_end(py)
            }
            (Phase::Open, true) => {
                let pipeline = link.get().state.borrow(py).pipeline.take();
                match pipeline {
                    Some(pipeline) => self.run(link, pipeline),
                    None => self.build(link),
                }
            }
            (Phase::Open, false) => {
                // Other code resolved the future. The pull keeps its queue position.
                let parked = Parked::new(py)?;
                let mut state = link.get().state.borrow(py);
                state.lock.set_waker(self.waiter, parked.waker());
                drop(state);
                self.park(link, parked, PullPhase::Queued)
            }
        }
    }
}
