//! The process's own use of the machine, from `/proc`. Where there is no `/proc` there are no figures.

use std::fs;

/// Clock ticks per second in `/proc/self/stat`: `USER_HZ`, 100 on every Linux that Rust's std runs on (proc(5)).
const TICKS: f64 = 100.0;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: i64,
    pub(super) open_fds: i64,
}

pub(super) fn usage() -> Option<Usage> {
    Some(Usage {
        cpu_seconds: cpu_seconds(&fs::read_to_string("/proc/self/stat").ok()?)?,
        resident_bytes: resident_bytes(&fs::read_to_string("/proc/self/status").ok()?)?,
        // One of them is the listing's own.
        open_fds: i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count())
            .ok()?
            .saturating_sub(1),
    })
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // The second member is the program's name in parentheses and may hold anything, spaces and parentheses included.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut ticks = rest.split_ascii_whitespace().skip(11).map(str::parse::<u32>);
    let (user, system) = (ticks.next()?.ok()?, ticks.next()?.ok()?);
    Some((f64::from(user) + f64::from(system)) / TICKS)
}

fn resident_bytes(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_past_any_program_name() {
        let stat = "12 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 150 0 0 20 0 1";
        assert_eq!(cpu_seconds(stat), Some(4.0));
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2_097_152));
        assert_eq!(cpu_seconds("nonsense"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn has_figures_of_its_own_process() {
        let usage = usage().unwrap();
        assert!(usage.resident_bytes > 100_000 && usage.open_fds > 0 && usage.cpu_seconds >= 0.0);
    }
}
