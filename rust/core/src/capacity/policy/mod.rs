//! Decisions of the scheduler: which request is granted, in which order, at which charge.

pub(in crate::capacity) mod adaptation;
pub mod adaptive;
pub(in crate::capacity) mod admission;
pub mod auto_rate;
pub(in crate::capacity) mod auto_rates;
pub(in crate::capacity) mod breaker;
pub(in crate::capacity) mod charging;
pub(in crate::capacity) mod cooldown;
pub(in crate::capacity) mod dispatch;
pub(in crate::capacity) mod eligibility;
pub(in crate::capacity) mod enqueue;
pub(in crate::capacity) mod fair_queue;
pub(in crate::capacity) mod floor;
pub(in crate::capacity) mod lag;
pub(in crate::capacity) mod rate_queue;
pub(in crate::capacity) mod reservation;
pub(in crate::capacity) mod starvation;
pub(in crate::capacity) mod uncontended;
