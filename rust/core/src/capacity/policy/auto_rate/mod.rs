//! A rate that follows the server: how often it accepts calls, learned from the limits that its answers state and from the answers that
//! refuse a call.
//!
//! # Problem
//!
//! The rate that a server allows is often unknown, and it changes. Many servers state in each answer how much of it is left: the limit `L`, the
//! rest `R` and the time `T` until all of it is restored. They mean different things by that. Most have a token bucket, so `T` is `(L - R)` divided by the rate.
//! Others count in fixed windows, and `T` is the rest of the window. Some state `T` in whole seconds. Others state nothing, and
//! refuse calls.
//!
//! # Approach
//!
//! [`RateController`] is pure: samples and stated limits in, a rate out. `adaptation.rs` applies the rate to the node, whose GCRA spaces the grants. It owns
//! the amount of the rate and nothing else: order, shares and timers are those of any rate.
//!
//! ## With stated limits
//!
//! The rate is at most `R / T`, which spends the rest evenly until it is restored.
//!
//! * For a fixed window that is exact.
//! * For a bucket of the rate `r`, `R / T` is `r x R / (L - R)`. Above half of the bucket it is more than `r`, below half it is less. So the rate
//!   settles at `r`, with half of the bucket in reserve, and no call is refused.
//! * `n` clients of one server see the same numbers, so each gets `r / n`, and they settle at `L / (n + 1)`.
//! * The level of the bucket decides and not the exact time, so whole seconds are good enough.
//!
//! The rate is at least `R / D`, where `D` is `T`, or three times the delay of an answer if that is longer, or one second. Any rate up
//! to that is safe for as long as the next answers take. It is also at least `min(R, L - R) / T`, which for a bucket is its rate where calls
//! take long. Between the two bounds the rate is learned from refused calls, as below.
//!
//! Deriving the rate of the bucket as `(L - R) / T` and keeping to it was considered. It is wrong by orders of magnitude for fixed windows and for
//! times in whole seconds, and does not notice other clients before the server is exhausted.
//!
//! A call that is refused although the last answer left more than a fifth is refused by a limit that the answers do not state. From then on
//! stated limits only lower the rate.
//!
//! ## Without
//!
//! The rate doubles every 1.5 s, or every four calls if that takes longer, until a call is refused. Then it is halved. Later
//! decreases set a *target*, and the rate starts at nine tenths of it. It rises as TCP's CUBIC does: fast, slowly near the target, which it reaches
//! after 12 s, and then ever faster, to find a limit that was raised. A step counts at most 0.12 s for each call, so that at low rates too
//! at least 100 calls lie between two decreases.
//!
//! The target is the mean rate since the last decrease: the bucket of the server was empty then and is empty now, so it accepted what it
//! restored. That is unknown if the rate did not hold work back all the time. Then, and after a fall of the limit, the target is eight tenths of the rate, or
//! more if many calls were accepted since the last decrease.
//!
//! Calls that began before a decrease cause no other one. If the rate falls below half of the target that it had, the cause was an outage rather than the
//! rate, and it doubles again up to that half.
//!
//! The rate rises only between two samples at which a request waited for it and for nothing else: never while idle.
//!
//! ## Outages
//!
//! A refused call that lowers the rate only pauses its node, as for an adaptive limit (`cooldown.rs`). At the minimum, and from the fifth
//! decrease in a row on, the server refuses everything, and a lower rate is no answer to that. Then the node is cooled down with a
//! back-off that doubles. It doubles also if the minimum rate grants the next call long after: the ramp is remembered until a call
//! has ended.
//!
//! # Figures
//!
//! `tests/test_capacity_auto_rate.py` runs pools in virtual time against a bucket of 10 calls a second and 60 at once, with calls of 50 to
//! 200 ms. It asserts:
//!
//! * With stated limits no call is refused after the first answer, at 95% of the rate or more.
//! * Without them at most 2% are refused after the first minute, at 90% or more.
//! * Two clients have 90% in sum, with at most 2% refused; with stated limits each has half.
//! * 60 s after the limit has changed to 5 or to 15, at least 80% of the new one is used, with at most 5% refused.
//! * Pools share the rate by weight within 3%.
//! * A server that refuses everything is called at most 30 times before a task has waited for `max_cooldown`.
//!
//! AWS's adaptive retry mode keeps seven tenths of the measured rate after each refused call. The measured rate includes the burst of
//! the bucket, so its cycle is deeper.
//!
//! # Limits
//!
//! A bucket of one call refuses calls that the network has bunched. Each costs a decrease, so such a server is not used in full. Where
//! calls take far longer than the bucket takes to fill, the first answers arrive late. Until then calls begin at the start rate and no
//! answer can prevent it, so those that the bucket does not hold are refused: about `start` times the delay of an answer, less the bucket. With
//! calls of 5 to 30 s, up to 30% were refused in the first minute for a bucket of 10, and none for one of 60; none later. The
//! decrease also halves a rate that the first answers had lowered already, and few calls mean slow growth: a bucket of 1 a second and 10 at
//! once was used at 15% or more in the next five minutes.
//!
//! # Sources
//!
//! Ha, Rhee and Xu, *CUBIC*, 2008. The adaptive retry mode of AWS's SDKs. IETF, *`RateLimit` header fields for HTTP*.

mod controller;

pub use controller::{RateController, RateRange, RateSample, StatedLimit};
