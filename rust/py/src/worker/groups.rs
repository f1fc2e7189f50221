//! `Groups`: the process groups of the workers of a host, which a watchdog ends. For Linux.
//!
//! # The problem
//!
//! The host notes the group of each worker in its cell ([`Cell::group`]): the number of the leader, which
//! is also the number of the group and of the session. The watchdog is not the parent of these processes, so a number may be free and in
//! use again by the time that it kills. It must kill neither too little (the leader has ended, and a process that it started runs) nor a
//! stranger.
//!
//! # Approach
//!
//! The kernel gives a number to no other process while any process has it as its group or session. So the group is *ours* if
//!
//! 1. the process of that number has the start time that the host has noted, whether it runs or was not waited for yet; or
//! 2. no process has the number, and a member of group and session started when the number was ours. A process gets its session from its
//!    parent or founds it, so this member is a descendant of the leader; and while it is there, the number was never free.
//!
//! The number was ours from the start time of the leader up to the last look at which it was (`seen`). There is a look each 250 ms. Numbers
//! are given in turn, so none is in use again within [`REUSE`]: that would take all numbers in this time.
//! Each look extends `seen` and so takes in what was started since.
//!
//! A leader that has ended is followed at once: the group is killed at the next look, as the host does with its workers.
//!
//! A group of which neither holds is not killed. It is a stranger's, or the watchdog had no processor for more than `REUSE` just when the
//! leader ended, and all processes that it had left are younger than that.
//!
//! # Limits
//!
//! A process that leaves the group (`setsid`) is not ended. One in an uninterruptible system call finishes this call before it ends, and the
//! watchdog waits for it.
//!
//! # Cost
//!
//! A look reads one file of `/proc` a worker. Only if a leader has ended, or if the watchdog waits for the end, it reads all of them.

use std::collections::HashMap;
use std::fs;

use headrace_core::worker::Cell;
use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, Signal, kill_process_group};

use super::cells::Cells;
use super::clock;

/// Seconds within which no number of a process is in use again.
const REUSE: u64 = 1;

/// The used fields of `/proc/<pid>/stat`.
struct Stat {
    state: char,
    group: u64,
    session: u64,
    threads: u64,
    /// In clock ticks since the start of the machine.
    started: u64,
}

impl Stat {
    fn read(pid: u64) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name of the program, in parentheses, may contain anything. The state follows, which is field 3.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse().ok();
        Some(Self {
            state: fields.first()?.chars().next()?,
            group: number(5)?,
            session: number(6)?,
            threads: number(20)?,
            started: number(22)?,
        })
    }

    /// Return whether a thread of the process can still run. The first thread may have ended before the others.
    fn can_run(&self) -> bool {
        !matches!(self.state, 'Z' | 'X') || self.threads > 1
    }
}

/// The process groups of the workers of a host.
#[derive(Debug)]
pub(super) struct Groups {
    cells: Cells,
    /// The last time, in ticks, at which a group was ours, by its number and the start time of its leader.
    seen: HashMap<(u64, u64), u64>,
    ticks_per_second: u64,
}

impl Groups {
    pub(super) fn new(cells: Cells) -> Self {
        Self {
            cells,
            seen: HashMap::new(),
            ticks_per_second: clock_ticks_per_second(),
        }
    }

    /// Look at all groups, and kill those whose leader has ended.
    pub(super) fn look(&mut self) {
        self.kill_if(|leader| !leader.can_run());
    }

    /// Kill all groups. Return whether a process of them can still run.
    pub(super) fn kill(&mut self) -> bool {
        let killed = self.kill_if(|_| true);
        // Afterwards: a process to which the signal was sent starts no other one, so none is missing in the list.
        !killed.is_empty()
            && (all().iter()).any(|stat| killed.contains(&stat.group) && stat.can_run())
    }

    /// Kill the groups that are ours, and whose leader, if it is there, meets the condition. Return them.
    fn kill_if(&mut self, condition: impl Fn(&Stat) -> bool) -> Vec<u64> {
        let groups = self.cells.iter().filter_map(Cell::group);
        let groups: Vec<(u64, u64)> = groups.collect();
        self.seen.retain(|group, _| groups.contains(group));
        let mut processes = None;
        let mut killed = vec![];
        for group @ (number, started) in groups {
            let now = self.now();
            let is_killed = if let Some(leader) = Stat::read(number) {
                if leader.started != started {
                    continue;
                }
                condition(&leader)
            } else {
                let seen = *self.seen.get(&group).unwrap_or(&started);
                let known = seen + REUSE * self.ticks_per_second;
                let is_ours = |stat: &Stat| {
                    stat.group == number && stat.session == number && stat.started <= known
                };
                if !processes.get_or_insert_with(all).iter().any(is_ours) {
                    continue;
                }
                true
            };
            self.seen.insert(group, now);
            if let (true, Some(pid)) = (is_killed, to_pid(number)) {
                let _ = kill_process_group(pid, Signal::KILL);
                killed.push(number);
            }
        }
        killed
    }

    /// Return the time in the unit of `/proc`.
    fn now(&self) -> u64 {
        let nanoseconds = u128::from(clock::now()) * u128::from(self.ticks_per_second);
        // Fewer than the nanoseconds, which fit.
        u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(u64::MAX)
    }
}

fn to_pid(number: u64) -> Option<Pid> {
    Pid::from_raw(i32::try_from(number).ok()?)
}

/// Return all processes.
fn all() -> Vec<Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    entries.filter_map(pid).filter_map(Stat::read).collect()
}
