//! Enums of objects of several native classes.
//! `AnySource` (`source`) and the enum of kernels (`kernel`) are made with it.

/// Declares an enum that holds an object of one of several classes. An enum, not a trait object: a call costs one jump, and its
/// code can be inlined. The two strings are the parameter and the expectation in the error for an object of another class.
macro_rules! class_enum {
    (
        $(#[$attribute:meta])*
        pub(crate) enum $name:ident: ($parameter:literal, $expected:literal) {
            $($variant:ident($class:ty)),+ $(,)?
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug)]
        pub(crate) enum $name {
            $(#[doc = stringify!($variant)] $variant(pyo3::Py<$class>),)+
        }

        impl $name {
            pub(crate) fn of(object: &pyo3::Bound<'_, pyo3::PyAny>) -> pyo3::PyResult<Self> {
                $(if let Ok(object) = object.cast_exact::<$class>() {
                    return Ok(Self::$variant(object.clone().unbind()));
                })+
                Err(crate::errors::wrong_type($parameter, $expected, object))
            }

            pub(crate) fn clone_ref(&self, py: pyo3::Python<'_>) -> Self {
                match self { $(Self::$variant(object) => Self::$variant(object.clone_ref(py)),)+ }
            }
        }

        crate::object::gc::traverse!(enum $name { $($variant(object)),+ });
    };
}
pub(crate) use class_enum;
