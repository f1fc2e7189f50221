//! Python objects: creation, borrowing, garbage collection, reuse and drop.
//!
//! | file | contents |
//! |---|---|
//! | [`class_enum`] | enums of objects of several native classes |
//! | [`failed_item`] | the item for which an error was raised, kept by that error |
//! | [`fast_attr`] | an attribute that C keeps in an object, read without a look-up of its name |
//! | [`freelist`] | reuse of dead objects |
//! | [`gc`] | visiting references for the garbage collector |
//! | [`gil_cell`] | state that the GIL guards |
//! | [`int_setting`] | integer parameters |
//! | [`iterative_drop`] | references that are dropped without recursion |
//! | [`iterator_result`] | the result of one step of a stream |
//! | [`output_slots`] | the order of the output of tasks that end in any order |

pub(crate) mod class_enum;
pub(crate) mod failed_item;
pub(crate) mod fast_attr;
pub(crate) mod freelist;
pub(crate) mod gc;
pub(crate) mod gil_cell;
pub(crate) mod int_setting;
pub(crate) mod iterative_drop;
pub(crate) mod iterator_result;
pub(crate) mod output_slots;
