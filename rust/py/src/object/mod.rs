//! Python objects as this crate makes, holds and frees them.

pub(crate) mod freelist;
pub(crate) mod gc;
pub(crate) mod gil_cell;
pub(crate) mod int_hasher;
pub(crate) mod int_setting;
pub(crate) mod iterative_drop;
pub(crate) mod iterator_result;
