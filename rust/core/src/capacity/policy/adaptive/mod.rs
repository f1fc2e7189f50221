//! An adaptive limit: how many calls a server takes at once, learned from the outcomes of calls.
//!
//! # Problem
//!
//! The right number of calls is unknown, and it changes. Servers with too many of them do one of three things: they refuse some
//! (429), they queue them silently, or they let them time out. A fixed limit is too low or provokes all three.
//!
//! Silent queueing is the hard case, since latency alone says little: the calls of language models differ a hundredfold with their output.
//!
//! # Approach
//!
//! [`Controller`] is pure: samples in, limit out. It reads no clock, so everything below is in calls, and one rule suits
//! calls of 10 ms and of 10 minutes. `adaptation.rs` feeds it and applies its limit as a resize.
//!
//! A *round* is as many calls as the limit allows at once, at least ten. A round counts only if a request waited in it for
//! this limit and for nothing else. After a change of the limit, one round is ignored: until then calls that began before it end. (Calls that
//! begin after it cannot be taken instead: the first of them to end are the short ones.)
//!
//! ## Increase
//!
//! After each counted round the limit rises by a step, which doubles with each round, up to half the limit. The last limit that was too high
//! is the *ceiling*. Below it, each step halves the distance, and one slot below it the limit rests for one round, or up to four if that
//! ceiling has been confirmed. This is TCP's BIC, in rounds. A hard cap is thus touched rarely, and a cap that has been lifted is left
//! behind in a few rounds.
//!
//! ## Decrease
//!
//! * A throttled call lowers the limit by a tenth, and so do timeouts if they are a tenth of the calls of a round. (Single hangs happen in any
//!   server.) Calls that began before the last decrease cause no other one: one event, one decrease. No grant is made until less is
//!   held than the limit, so even a fall from 80 to 10 takes about as long as the calls that run.
//! * The median latency is compared with that of a *reference*, a lower limit. By Little's law the throughput is limit / latency: if the limit is
//!   `l` times as high and the median `r` times, the throughput is `l / r` times as high. If `r > sqrt(l)`, less than half of the increase became
//!   throughput, in logarithms: the limit returns to where the reference's latency would be. If `r` is less by more than its error, the
//!   current limit becomes the reference. Otherwise the limit goes on rising, and with it the contrast.
//!
//! Differences count only beyond their error, which the quartiles tell: few calls decide where latencies are even, many where they vary.
//!
//! ## Cooldown
//!
//! A throttled call may also cool its node down (`cooldown.rs`). Where its answer has no delay, and it has lowered the limit or began before the last
//! decrease, the node only pauses: [`Controller::setbacks`] counts the decreases in a row, between which no round of calls was complete. It is 0
//! where the limit could not fall, and the node is then cooled down as one without an adaptive limit.
//!
//! ## Trial
//!
//! A limit that was too high from the start, or has become so, has no lower reference. So the limit is lowered by a quarter, for one to four
//! rounds, when the median has risen by a quarter at the same limit; and every 16 rounds, up to every 64 if nothing comes of it. If the latency
//! falls with the limit, the lower limit is right, and the next trial follows at once. Otherwise the limit is restored. This asks the server
//! whether the limit is the cause: work that has become longer in itself lowers nothing.
//!
//! # Comparison
//!
//! `rust/core/tests/adaptive` simulates each algorithm in virtual time, with a backlog, from 10 within 1 and 100, for 10 minutes. The mean service
//! takes 1 s; its logarithm has a standard deviation of 0.25, or 1 where "noisy". Figures are means of ten seeds, after the first minute:
//!
//! * throughput relative to the best fixed limit;
//! * the part of throttled calls, or the median latency relative to that of single calls;
//! * for a capacity of 40, then 10, then 80: the throughput relative to each capacity, from 30 s after the change on.
//!
//! | | cap 40, 429s | queue, 20 at once | queue, noisy | noisy, no limit | 40, 10, 80 by 429s | by queueing | 0.3% hang, 1% fail |
//! |---|---|---|---|---|---|---|---|
//! | headrace | 0.97, 0.21% | 0.97, 1.19 | 0.99, 2.20 | 0.99 | 0.96 0.97 0.97 | 0.98 0.97 0.98 | 1.04 |
//! | Reno | 0.77, 0.16% | 1.00, 4.96 | 1.00, 7.31 | 0.99 | 0.77 0.82 0.74 | 1.00 1.00 1.00 | 0.82 |
//! | Vegas | 0.71, 1.88% | 1.00, 1.28 | 0.37, 1.02 | 0.08 | 0.75 1.00 0.39 | 0.82 1.00 0.40 | 0.76 |
//! | Gradient2 | 0.96, 1.90% | 1.00, 5.13 | 1.00, 7.73 | 0.85 | 0.97 0.99 0.96 | 1.00 1.01 1.00 | 1.05 |
//! | Envoy | 0.88, 50.74% | 0.89, 1.53 | 0.65, 1.77 | 0.66 | 0.88 0.94 0.83 | 0.88 0.93 0.90 | 0.72 |
//! | cubic | 0.94, 0.84% | 1.00, 5.13 | 1.00, 7.78 | 1.00 | 0.95 0.96 0.94 | 1.00 1.00 1.00 | 1.02 |
//! | BBR | 0.88, 1.89% | 1.00, 2.75 | 0.09, 1.01 | 0.02 | 0.85 0.91 0.62 | 0.94 1.00 0.98 | 0.69 |
//!
//! (Above 1: a call that hangs takes a slot of the client and none of the server, so a limit slightly above 40 is best there.)
//!
//! * *Reno* and *cubic* (the function of AWS's adaptive retry mode, on a limit) learn from losses alone, and fill a silent queue up to the maximum.
//!   Half is a large decrease for a cap that stands still.
//! * *Vegas* and *BBR* measure the least latency. Where latencies vary, the least is far from the usual one, and the limit collapses.
//! * *Gradient2* (Netflix) compares a short average with a long one, which follows the queue and so hides it; with a fixed headroom it meets a cap
//!   over and over.
//! * *Envoy* measures the least latency at a limit of 3, each minute, which is dear; and the headroom, a square root, is refused by a cap.
//!
//! # Limits
//!
//! In a noisy queue the median may be two to three times the least, at full throughput: a round tells little there. Below ten calls at once a
//! round is ten calls, so a limit of 2 is learned slowly.
//!
//! # Sources
//!
//! Jacobson, *Congestion avoidance and control*, 1988. Brakmo and Peterson, *TCP Vegas*, 1995. Xu, Harfoush and Rhee, *Binary increase congestion
//! control*, 2004. Ha, Rhee and Xu, *CUBIC*, 2008. Cardwell et al., *BBR*, 2016. Netflix's concurrency-limits; the adaptive concurrency
//! filter of Envoy; the adaptive retry mode of AWS's SDKs.

mod controller;
mod window;

pub use controller::{AdaptiveRange, Controller, Outcome, Sample};
