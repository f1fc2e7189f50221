//! `PyTaskBase`: a callable with its arguments and options. `headrace.Task` derives from it, and `pool/task_spec.rs` reads it.
//!
//! The constructor accepts common options here. For any other it calls `Task._check_options`, which checks all options in Python
//! and raises the errors. A task is created for each item of a run, so that this costs as much as all else that a run does.

use std::sync::OnceLock;

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyInt, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::checks::{is_blocking_function, is_plain_cost, is_plain_function, is_time_limit};
use crate::capacity::Argument;
use crate::object::gc::{self, Traverse, VisitError, Visitor, traverse};

/// The native part of `Task`. Its fields are set once: by `__init__`, or by `_restore` in a copy.
///
/// There is no `__clear__`: a cycle that contains a task also contains a mutable object, which the collector clears.
#[pyclass(
    name = "TaskBase",
    subclass,
    frozen,
    weakref,
    module = "headrace._core"
)]
#[derive(Debug)]
pub(crate) struct PyTaskBase(OnceLock<Fields>);

/// The function of a task, its arguments and its options.
#[derive(Debug)]
pub(crate) struct Fields {
    pub(crate) fn_: Py<PyAny>,
    pub(crate) args: Py<PyTuple>,
    pub(crate) key: Option<Py<PyAny>>,
    /// `None` for 1.
    pub(crate) cost: Option<Py<PyAny>>,
    /// The context in which the task was created.
    pub(crate) context: Py<PyAny>,
    /// `None` if all of them have their defaults.
    pub(crate) options: Option<Box<Options>>,
}

/// The options of a task besides its key and cost.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// `None` for 0.
    pub(crate) priority: Option<Py<PyAny>>,
    pub(crate) thread: bool,
    pub(crate) timeout: Option<Py<PyAny>>,
    pub(crate) queue_timeout: Option<Py<PyAny>>,
    pub(crate) retry: Option<Py<PyAny>>,
    pub(crate) on_complete: Option<Py<PyAny>>,
    pub(crate) on_error: Option<Py<PyAny>>,
}

traverse!(Options {
    priority,
    timeout,
    queue_timeout,
    retry,
    on_complete,
    on_error
});

impl Traverse for Fields {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        visit(&self.fn_)?;
        visit(self.args.as_any())?;
        visit(&self.context)?;
        self.key.traverse(visit)?;
        self.cost.traverse(visit)?;
        self.options.traverse(visit)
    }
}

#[pymethods]
impl PyTaskBase {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(fn, /, *args, key=None, cost=1, priority=0, thread=False, timeout=None, queue_timeout=None, retry=None, on_complete=None, on_error=None)")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self(OnceLock::new())
    }

    // Each option is a parameter, since PyO3 would collect `**options` in a dictionary, which takes longer than the rest.
    #[pyo3(signature = (
        fn_, /, *args, key = Argument::Default, cost = Argument::Default, priority = Argument::Default, thread = Argument::Default,
        timeout = Argument::Default, queue_timeout = Argument::Default, retry = Argument::Default, on_complete = Argument::Default,
        on_error = Argument::Default, **unknown
    ))]
    #[expect(clippy::too_many_arguments, reason = "they are the options of a task")]
    fn __init__<'py>(
        slf: &Bound<'py, Self>,
        fn_: &Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        key: Argument<'_, 'py>,
        cost: Argument<'_, 'py>,
        priority: Argument<'_, 'py>,
        thread: Argument<'_, 'py>,
        timeout: Argument<'_, 'py>,
        queue_timeout: Argument<'_, 'py>,
        retry: Argument<'_, 'py>,
        on_complete: Argument<'_, 'py>,
        on_error: Argument<'_, 'py>,
        unknown: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<()> {
        let py = slf.py();
        if let Some(unknown) = unknown {
            return Err(unknown_option(unknown));
        }
        let options = [
            ("key", key),
            ("cost", cost),
            ("priority", priority),
            ("thread", thread),
            ("timeout", timeout),
            ("queue_timeout", queue_timeout),
            ("retry", retry),
            ("on_complete", on_complete),
            ("on_error", on_error),
        ];
        let mut given = Given::default();
        let mut is_valid = fn_.is_callable();
        for (name, option) in options {
            if let Argument::Value(value) = option {
                is_valid &= given.set(name, value.to_owned())?;
            }
            is_valid = is_valid && (!given.is_in_thread() || is_blocking_function(fn_)?);
        }
        if !is_valid {
            given.set_checked(slf, fn_, options)?;
        }
        slf.get()
            .fill(given.fields(fn_.clone(), args, context_without_lease(py)?))
    }

    /// Set the fields of a copy, whose options were checked before. `context` is None for a copy of the current context.
    fn _restore(
        slf: &Bound<'_, Self>,
        fn_: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        options: &Bound<'_, PyDict>,
        context: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let mut given = Given::default();
        for (name, value) in options {
            given.set(name.cast::<PyString>()?.to_str()?, value)?;
        }
        let context = match context {
            Some(context) => context,
            None => context_without_lease(slf.py())?,
        };
        slf.get().fill(given.fields(fn_, args, context))
    }

    /// Return the same task with other arguments, in a copy of the current context.
    ///
    /// The options are not checked again, which makes this cheap.
    #[pyo3(signature = (*args))]
    fn with_args<'py>(
        slf: &Bound<'py, Self>,
        args: Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let fields = slf.get().fields()?;
        let copy = empty_of_same_class(slf)?;
        let options = fields.options.as_ref();
        copy.get().fill(Fields {
            fn_: fields.fn_.clone_ref(py),
            args: args.unbind(),
            key: shared(py, fields.key.as_ref()),
            cost: shared(py, fields.cost.as_ref()),
            context: context_without_lease(py)?.unbind(),
            options: options.map(|options| Box::new(options.clone_ref(py))),
        })?;
        Ok(copy.into_any())
    }

    /// The function that is called.
    #[getter]
    fn r#fn(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.fields()?.fn_.clone_ref(py))
    }

    /// The arguments of the call.
    #[getter]
    fn args(&self, py: Python<'_>) -> PyResult<Py<PyTuple>> {
        Ok(self.fields()?.args.clone_ref(py))
    }

    #[getter]
    fn key(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        Ok(shared(py, self.fields()?.key.as_ref()))
    }

    #[getter]
    fn cost<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(match &self.fields()?.cost {
            Some(cost) => cost.bind(py).clone(),
            None => PyInt::new(py, 1).into_any(),
        })
    }

    #[getter]
    fn priority<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(
            match self.option(py, |options| options.priority.as_ref())? {
                Some(priority) => priority.into_bound(py),
                None => PyInt::new(py, 0).into_any(),
            },
        )
    }

    #[getter]
    fn thread(&self) -> PyResult<bool> {
        let options = self.fields()?.options.as_ref();
        Ok(options.is_some_and(|options| options.thread))
    }

    #[getter]
    fn timeout(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.option(py, |options| options.timeout.as_ref())
    }

    #[getter]
    fn queue_timeout(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.option(py, |options| options.queue_timeout.as_ref())
    }

    #[getter]
    fn retry(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.option(py, |options| options.retry.as_ref())
    }

    #[getter]
    fn on_complete(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.option(py, |options| options.on_complete.as_ref())
    }

    #[getter]
    fn on_error(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.option(py, |options| options.on_error.as_ref())
    }

    /// The context in which the task was created. Each call runs in a copy of it.
    #[getter]
    fn context(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.fields()?.context.clone_ref(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(fields) = self.0.get() else {
            return Ok(());
        };
        gc::visit(&visit, |visit| fields.traverse(visit))
    }
}

impl PyTaskBase {
    /// Return the fields, or an error if a subclass has not called the constructor of `Task`.
    #[inline]
    pub(crate) fn fields(&self) -> PyResult<&Fields> {
        self.0.get().ok_or_else(|| {
            PyRuntimeError::new_err(
                "this task was not initialised: call super().__init__(fn, ...) in the __init__ of a subclass of Task",
            )
        })
    }

    fn fill(&self, fields: Fields) -> PyResult<()> {
        self.0.set(fields).map_err(|_| {
            PyRuntimeError::new_err("this task is initialised already: create another Task instead")
        })
    }

    #[inline]
    fn option(
        &self,
        py: Python<'_>,
        of: impl FnOnce(&Options) -> Option<&Py<PyAny>>,
    ) -> PyResult<Option<Py<PyAny>>> {
        let options = self.fields()?.options.as_ref();
        Ok(shared(py, options.and_then(|options| of(options))))
    }
}

impl Options {
    fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            priority: shared(py, self.priority.as_ref()),
            thread: self.thread,
            timeout: shared(py, self.timeout.as_ref()),
            queue_timeout: shared(py, self.queue_timeout.as_ref()),
            retry: shared(py, self.retry.as_ref()),
            on_complete: shared(py, self.on_complete.as_ref()),
            on_error: shared(py, self.on_error.as_ref()),
        }
    }
}

/// Selects one of the options.
type Selector = fn(&mut Options) -> &mut Option<Py<PyAny>>;

/// The options that the caller passed.
#[derive(Default)]
struct Given {
    key: Option<Py<PyAny>>,
    cost: Option<Py<PyAny>>,
    options: Option<Box<Options>>,
}

impl Given {
    /// Store an option. Return whether it is certainly valid.
    fn set(&mut self, name: &str, value: Bound<'_, PyAny>) -> PyResult<bool> {
        let is_default = value.is_none();
        match name {
            "key" => {
                let is_valid = is_default || value.hash().is_ok();
                self.key = (!is_default).then(|| value.unbind());
                return Ok(is_valid);
            }
            "cost" => {
                let is_valid = is_plain_cost(&value);
                self.cost = Some(value.unbind());
                return Ok(is_valid);
            }
            "priority" => {
                let is_valid = value.is_exact_instance_of::<PyInt>();
                let is_zero = is_valid && !value.is_truthy()?;
                if !is_zero {
                    self.options().priority = Some(value.unbind());
                }
                return Ok(is_valid);
            }
            "thread" => {
                let is_true = value.is_exact_instance_of::<PyBool>() && value.is_truthy()?;
                if is_true {
                    self.options().thread = true;
                }
                return Ok(value.is_exact_instance_of::<PyBool>());
            }
            _ => {}
        }
        let (is_valid, of): (bool, Selector) = match name {
            "timeout" => (is_time_limit(&value), |options| &mut options.timeout),
            "queue_timeout" => (is_time_limit(&value), |options| &mut options.queue_timeout),
            "retry" => (false, |options| &mut options.retry),
            "on_complete" => (is_plain_function(&value)?, |options| {
                &mut options.on_complete
            }),
            "on_error" => (is_plain_function(&value)?, |options| &mut options.on_error),
            _ => return Err(unexpected(name)),
        };
        if is_default {
            // `_check_options` returns all options, and may replace one by None.
            if let Some(options) = &mut self.options {
                *of(options) = None;
            }
            return Ok(true);
        }
        *of(self.options()) = Some(value.unbind());
        Ok(is_valid)
    }

    /// Let Python check all options, and store those that it returns.
    #[cold]
    fn set_checked<'py, const N: usize>(
        &mut self,
        task: &Bound<'py, PyTaskBase>,
        fn_: &Bound<'py, PyAny>,
        options: [(&str, Argument<'_, 'py>); N],
    ) -> PyResult<()> {
        let py = task.py();
        let passed = PyDict::new(py);
        for (name, option) in options {
            if let Argument::Value(value) = option {
                passed.set_item(name, value)?;
            }
        }
        let check = task.getattr(intern!(py, "_check_options"))?;
        let checked = check.call((fn_,), Some(&passed))?;
        for (name, value) in checked.cast::<PyDict>()? {
            self.set(name.cast::<PyString>()?.to_str()?, value)?;
        }
        Ok(())
    }

    fn options(&mut self) -> &mut Options {
        self.options.get_or_insert_default()
    }

    fn is_in_thread(&self) -> bool {
        self.options.as_ref().is_some_and(|options| options.thread)
    }

    fn fields(
        self,
        fn_: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        context: Bound<'_, PyAny>,
    ) -> Fields {
        Fields {
            fn_: fn_.unbind(),
            args: args.unbind(),
            key: self.key,
            cost: self.cost,
            context: context.unbind(),
            options: self.options,
        }
    }
}

/// Return the error of the first option that a task does not have.
#[cold]
fn unknown_option(options: &Bound<'_, PyDict>) -> PyErr {
    let name = options.keys().get_item(0).map(|name| name.to_string());
    name.map_or_else(|error| error, |name| unexpected(&name))
}

#[cold]
fn unexpected(name: &str) -> PyErr {
    PyTypeError::new_err(format!(
        "Task() got an unexpected keyword argument '{name}'"
    ))
}

/// The context variable of `current_lease()`.
static LEASE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Store the context variable of `current_lease()`. The module of `Task` calls this when it is imported.
///
/// The constructor must not import it: a signal handler that creates a task would wait for an import of its own thread.
#[pyfunction]
pub(crate) fn set_lease_variable(variable: &Bound<'_, PyAny>) {
    LEASE.get_or_init(variable.py(), || variable.clone().unbind());
}

/// Return a copy of the current context without a lease, for work that gets its own.
#[inline]
fn context_without_lease(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let Some(variable) = LEASE.get(py).map(|variable| variable.bind(py)) else {
        // SAFETY: attached; the result is an owned reference, or null.
        return unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) };
    };
    // SAFETY: attached, and a live context variable, whose default is None; the results are owned references.
    let (lease, context) = unsafe {
        let mut lease = std::ptr::null_mut();
        if ffi::PyContextVar_Get(variable.as_ptr(), std::ptr::null_mut(), &raw mut lease) < 0 {
            return Err(PyErr::fetch(py));
        }
        let lease = Bound::from_owned_ptr_or_opt(py, lease);
        (
            lease,
            Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent())?,
        )
    };
    if lease.is_some_and(|lease| !lease.is_none()) {
        let arguments = (variable.getattr(intern!(py, "set"))?, py.None());
        context.call_method1(intern!(py, "run"), arguments)?;
    }
    Ok(context)
}

/// Return a new object of the class of a task, without fields.
fn empty_of_same_class<'py>(task: &Bound<'py, PyTaskBase>) -> PyResult<Bound<'py, PyTaskBase>> {
    let py = task.py();
    let class = task.get_type_ptr();
    let no_arguments = PyTuple::empty(py);
    // SAFETY: attached; the live class of a live object, which has a constructor; the result is an owned reference or null.
    let made = unsafe {
        let new = (*class).tp_new.expect("a class that has objects");
        let made = new(class, no_arguments.as_ptr(), std::ptr::null_mut());
        Bound::from_owned_ptr_or_err(py, made)?
    };
    Ok(made.cast_into::<PyTaskBase>()?)
}

fn shared(py: Python<'_>, held: Option<&Py<PyAny>>) -> Option<Py<PyAny>> {
    held.map(|held| held.clone_ref(py))
}
