//! The hot part of the pool: tasks whose terms ask for nothing special.
//!
//! A run of a pool is Python (`headrace/pool/run.py`). It decides what may be called, retries, orders,
//! times out, drains and closes. For a *plain* task, one with nothing but a cost and a key, under a runner
//! that orders nothing and tells no source, all of that comes to the same few steps, and they are here:
//!
//! 1. [`feed`] pulls an item inside the feeder's own step.
//! 2. If it is a plain task, its capacity is free and there is room for envelopes, [`lane`] makes an
//!    asyncio task of it and has it do its first step there and then: CPython does that from 3.12 on
//!    (`eager_start`); before, the lane steps it in the new task's name, with the task as the current one
//!    and its context entered, and the task itself finds what came of it.
//! 3. [`work`], the body of that asyncio task, calls the function and drives what it returns. At its end
//!    it gives the lease back, puts the [`envelope`] and returns what the function returned.
//!
//! If its capacity is not free, the feed [waits](waiting) with it. Whatever is not so simple (an item that is no task, an
//! error, a value that was yielded) is handed to Python at the place where Python would have been anyway. So the two ways of running a task
//! differ in nothing but time, and a task may take either.
//!
//! | file | what it holds |
//! |---|---|
//! | [`envelope`] | what the consumer gets |
//! | [`take`] | the envelopes that are not read yet, and a pull of one |
//! | [`lane`] | what all plain tasks of a run share |
//! | [`roll`] | those that run |
//! | [`feed`] | what pulls and launches them |
//! | [`waiting`] | the one that waits for its capacity |
//! | [`terms`] | what one asks for |
//! | [`ids`] | their numbers |
//! | [`ticket`] | what is kept of one that was called |
//! | [`body`] | one of them, from its call to its end |
//! | [`ending`] | what the lane does when one has ended |
//! | [`maker`] | what makes asyncio tasks |
//! | [`work`] | the asyncio task in which one runs alone |
//! | [`held`] | what one waits for before its asyncio task knows |
//! | [`meter`] | how many ended, and how fast |

mod body;
mod ending;
mod envelope;
mod feed;
mod held;
mod ids;
mod lane;
mod maker;
mod meter;
mod roll;
mod take;
mod terms;
mod ticket;
mod waiting;
mod work;

use pyo3::prelude::*;

use crate::coroutine::Native;
use crate::object::freelist;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    Native::<take::Take>::register(py)?;
    Native::<feed::Feed>::register(py)?;
    Native::<work::Work>::register(py)?;
    module.add_class::<envelope::Envelope>()?;
    freelist::register::<envelope::Envelope>(py)?;
    module.add_class::<take::Unread>()?;
    module.add_function(wrap_pyfunction!(take::quicken, module)?)?;
    module.add_class::<lane::Lane>()?;
    module.add_class::<ids::Ids>()?;
    module.add_class::<meter::Meter>()
}
