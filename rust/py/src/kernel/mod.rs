//! Kernels: the logic of one operator.
//!
//! A kernel is a small state machine: item in, zero or more items out, and a flush at the end. It
//! does not know whether items are pulled or pushed, nor which stages are before and after it, so each
//! operator is written once. Two drivers run kernels:
//!
//! * The **pull** driver ([`crate::pull`]) runs them on demand. One loop takes an item from the source,
//!   passes it to one kernel after another and returns the result of the last.
//! * The **push** driver ([`crate::push`]) runs the same kernels on supply.
//!
//! Either driver *fuses* adjacent stock links: one Rust loop with one call into Python per user
//! callable, no coroutine per stage and no recursion, so a pipeline of 10,000 links runs. The drivers
//! also await the result of a callable, keep the item of a cancelled pull, and name the operator in an
//! error. Both spend from one [yield budget](crate::runtime::yield_budget), so that a stream of ready
//! items still yields to the event loop.
//!
//! A kernel owns its configuration (`transform`, `predicate`) and its state. Both are live: a driver reads them for each item and
//! caches nothing.
//!
//! To add one: a file here with a `#[pyclass]`, its methods in `live_kernel!` if it has live attributes,
//! and its [`Kernel`]; its name in `kernels!` below; its stub in `_core.pyi`; its two classes in
//! `python/headrace/pull/transform.py` and `push/transform.py`.

mod batch;
mod batch_until;
mod callable;
mod callback;
mod catch;
mod dedupe;
mod filter;
mod flat_map;
mod flatten;
mod in_order;
mod map;
mod pending_batch;
mod reduce;
mod skip;
mod take;
mod take_while;

use pyo3::prelude::*;

use crate::coroutine::delegate::is_awaitable;
use crate::errors::RaisedError;
use crate::object::class_enum::class_enum;
use crate::object::gc::Traverse;
use crate::source::AnySource;
pub(crate) use callable::{Callable, call_one};
pub(crate) use catch::PyCaught;
pub(crate) use map::PyMapKernel;
pub(crate) use reduce::PyReduceKernel;

/// The result of processing one item.
#[derive(Debug)]
pub(crate) enum Output<'py> {
    /// Pass this to the next stage.
    Emit(Bound<'py, PyAny>),
    /// Pass this to the next stage, then end: nothing more is taken from the source.
    Last(Bound<'py, PyAny>),
    /// Emit nothing for this item.
    Skip,
    /// Emit nothing, and end: nothing more is taken from the source.
    Stop,
    /// Pass the items of this source to the next stage, one by one on demand. Boxed, which makes an output fit two registers.
    Many(Box<AnySource>),
    /// Await this result of the callable, then call [`Kernel::resume`] with the value.
    Await(Bound<'py, PyAny>),
}

impl<'py> Output<'py> {
    /// Return the items of an iterable, sync or async.
    fn many(iterable: &Bound<'py, PyAny>) -> PyResult<Self> {
        AnySource::over(iterable).map(|source| Self::Many(Box::new(source)))
    }
}

/// The logic of one operator.
pub(crate) trait Kernel: Traverse {
    /// The name of the parameter that holds the callable, for the note on an error that it raises.
    const PARAMETER: &'static str;

    /// Whether the kernel processes errors of the stages before it, each as a [`PyCaught`].
    const CATCHES: bool = false;

    /// Process an item. An error is the callable's own; the driver adds a note that names the operator.
    fn process<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Output<'py>, RaisedError>;

    /// Continue with the result of the callable, or return it to be awaited.
    #[inline]
    fn resume_or_await<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        result: Bound<'py, PyAny>,
    ) -> Result<Output<'py>, RaisedError> {
        if is_awaitable(&result) {
            return Ok(Output::Await(result));
        }
        RaisedError::set_from(item.py(), self.resume(item, result))
    }

    /// Continue with the result of the awaitable that [`Output::Await`] returned for `item`.
    fn resume<'py>(
        &self,
        _item: &Bound<'py, PyAny>,
        _result: Bound<'py, PyAny>,
    ) -> PyResult<Output<'py>> {
        unreachable!("this kernel awaits nothing")
    }

    /// Return whether no more items are to be taken from the source. Checked before each item, including the first.
    fn is_done(&self, _py: Python<'_>) -> bool {
        false
    }

    /// Return one of the items that are still held at the end of the source. Called until it returns `None`.
    fn flush<'py>(&self, _py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        None
    }

    /// Reset the state for a restart.
    fn restart(&self, _py: Python<'_>) {}
}

/// Implements the Python methods of a kernel with live attributes: the methods of the block, `__traverse__`, a `__clear__` that drops the
/// callables and the state, and for each `attribute: setter` a getter and a setter. The attribute is a field with a [`Callable`]
/// or an [`IntSetting`](crate::object::int_setting::IntSetting).
macro_rules! live_kernel {
    (impl $kernel:ident { live { $($attribute:ident: $setter:ident),+ } $($methods:tt)* }) => {
        #[pyo3::pymethods]
        impl $kernel {
            $($methods)*

            $(#[getter]
            fn $attribute<'py>(&self, py: pyo3::Python<'py>) -> pyo3::PyResult<pyo3::Bound<'py, pyo3::PyAny>> {
                pyo3::IntoPyObjectExt::into_bound_py_any(self.$attribute.get(py), py)
            }

            #[setter]
            fn $setter(&self, value: &pyo3::Bound<'_, pyo3::PyAny>) -> pyo3::PyResult<()> {
                self.$attribute.set(value)
            })+

            fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
                crate::object::gc::visit(&visit, |visit| crate::object::gc::Traverse::traverse(self, visit))
            }

            fn __clear__(&self, py: pyo3::Python<'_>) {
                $(self.$attribute.clear(py);)+
                Kernel::restart(self, py);
            }
        }
    };
}
use live_kernel;

/// Declares the kernels: the enum by which a driver holds one of them, and their registration.
macro_rules! kernels {
    ($($name:ident($class:ty)),+ $(,)?) => {
        class_enum! {
            /// Any kernel.
            pub(crate) enum AnyKernel: ("kernel", "a kernel of headrace") {
                $($name($class)),+
            }
        }

        impl AnyKernel {
            // `map` and `filter` are inlined into the driver's loop; it calls the others.
            #[inline(always)]
            pub(crate) fn process<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Output<'py>, RaisedError> {
                match self { $(Self::$name(kernel) => kernel.get().process(item),)+ }
            }

            pub(crate) fn resume<'py>(&self, item: &Bound<'py, PyAny>, result: Bound<'py, PyAny>) -> PyResult<Output<'py>> {
                match self { $(Self::$name(kernel) => kernel.get().resume(item, result),)+ }
            }

            pub(crate) fn is_done(&self, py: Python<'_>) -> bool {
                match self { $(Self::$name(kernel) => kernel.get().is_done(py),)+ }
            }

            pub(crate) fn flush<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
                match self { $(Self::$name(kernel) => kernel.get().flush(py),)+ }
            }

            /// Return whether the kernel processes errors of the stages before it, each as a [`PyCaught`].
            pub(crate) fn catches(&self) -> bool {
                match self { $(Self::$name(_) => <$class as Kernel>::CATCHES,)+ }
            }

            pub(crate) fn restart(&self, py: Python<'_>) {
                match self { $(Self::$name(kernel) => kernel.get().restart(py),)+ }
            }

            pub(crate) fn parameter(&self) -> &'static str {
                match self { $(Self::$name(_) => <$class as Kernel>::PARAMETER,)+ }
            }
        }

        /// Add the kernels to the module.
        pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
            $(module.add_class::<$class>()?;)+
            Ok(())
        }
    };
}

kernels! {
    Map(PyMapKernel),
    Filter(filter::PyFilterKernel),
    Reduce(PyReduceKernel),
    Dedupe(dedupe::PyDedupeKernel),
    FlatMap(flat_map::PyFlatMapKernel),
    Flatten(flatten::PyFlattenKernel),
    Batch(batch::PyBatchKernel),
    Take(take::PyTakeKernel),
    Skip(skip::PySkipKernel),
    While(take_while::PyWhileKernel),
    BatchUntil(batch_until::PyBatchUntilKernel),
    Callback(callback::PyCallbackKernel),
    InOrder(in_order::PyInOrderKernel),
    Catch(catch::PyCatchKernel),
}
