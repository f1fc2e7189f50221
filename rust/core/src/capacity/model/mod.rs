//! Records of the scheduler, and the walks over them: they know nothing of its decisions.

pub(in crate::capacity) mod alarm_record;
pub(in crate::capacity) mod breaker;
pub(in crate::capacity) mod floor;
pub(in crate::capacity) mod ids;
pub(in crate::capacity) mod low_water_marks;
pub(in crate::capacity) mod node;
pub(in crate::capacity) mod permit_record;
pub(in crate::capacity) mod ramp;
pub(in crate::capacity) mod rate;
pub(in crate::capacity) mod resource;
pub(in crate::capacity) mod share;
pub(in crate::capacity) mod state;
pub(in crate::capacity) mod wait_queue;
pub(in crate::capacity) mod waiter;
