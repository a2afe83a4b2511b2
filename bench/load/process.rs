//! What a server process costs, from the kernel's own books. Linux only.

use std::fs;
use std::time::Duration;

use crate::Outcome;

/// A process that is being watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pub(crate) id: u32,
}

/// Processor time, user and system, counted in two ways.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    /// Sum over the threads alive now: exact, but forgets a thread that ended.
    exact: Duration,
    /// Sum over all threads that ever were, in clock ticks of 10 ms.
    coarse: Duration,
}

/// Resident memory in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) now: u64,
    pub(crate) peak: u64,
}

impl Process {
    pub(crate) fn own() -> Self {
        Self {
            id: std::process::id(),
        }
    }

    pub(crate) fn spent(self) -> Outcome<Spent> {
        let mut nanoseconds = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.id))? {
            // A thread may end between the listing and the look.
            let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else {
                continue;
            };
            nanoseconds += text
                .split(' ')
                .next()
                .ok_or("an empty schedstat")?
                .parse::<u64>()?;
        }
        let text = fs::read_to_string(format!("/proc/{}/stat", self.id))?;
        // The name in brackets may hold spaces; user and system time are fields 14 and 15 counted from the pid.
        let (_, after_name) = text.rsplit_once(") ").ok_or("a malformed stat")?;
        let fields: Vec<&str> = after_name.split(' ').collect();
        let ticks =
            fields.get(11).ok_or("stat")?.parse::<u64>()? + fields.get(12).ok_or("stat")?.parse::<u64>()?;
        Ok(Spent {
            exact: Duration::from_nanos(nanoseconds),
            coarse: Duration::from_millis(ticks * 10),
        })
    }

    pub(crate) fn memory(self) -> Outcome<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id))?;
        let kibibytes = |name: &str| -> Outcome<u64> {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .ok_or("no memory in status")?;
            Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
        };
        Ok(Memory {
            now: kibibytes("VmRSS:")?,
            peak: kibibytes("VmHWM:")?,
        })
    }
}

impl Spent {
    /// Processor time since `before`; where threads ended in between, the coarse count steps in.
    pub(crate) fn since(self, before: Self) -> Duration {
        let exact = self.exact.saturating_sub(before.exact);
        let coarse = self.coarse.saturating_sub(before.coarse);
        if coarse > exact + Duration::from_millis(40) {
            coarse
        } else {
            exact
        }
    }
}
