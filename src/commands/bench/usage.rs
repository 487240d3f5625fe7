//! What processes used, as the system counts it. Elsewhere than on Linux, nothing is known.

use std::fs;

/// What one process has used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Seconds of processor time, in and for it.
    pub(super) cpu: Option<f64>,
    /// The most memory that it ever had resident, in bytes.
    pub(super) peak: Option<u64>,
}

impl Usage {
    /// Of several processes: processor time in all, and the memory of the largest.
    pub(super) fn of_all(usages: impl IntoIterator<Item = Self>) -> Self {
        let add = |one: Self, other: Self| Self {
            cpu: one.cpu.zip(other.cpu).map(|(one, other)| one + other),
            peak: one.peak.max(other.peak),
        };
        usages.into_iter().reduce(add).unwrap_or_default()
    }

    /// What was used since an earlier reading.
    pub(super) fn since(self, before: Self) -> Self {
        let cpu = self.cpu.zip(before.cpu);
        Self {
            cpu: cpu.map(|(after, before)| after - before),
            ..self
        }
    }
}

/// Of one process.
pub(super) fn of(pid: u32) -> Usage {
    let cpu = Stat::read(pid).map(|stat| stat.own());
    Usage {
        cpu,
        peak: peak(pid),
    }
}

/// Seconds of processor time of a Postgres server: the postmaster, its children, and those that have ended.
pub(super) fn of_server(postmaster: u32) -> Option<f64> {
    loop {
        let before = Stat::read(postmaster)?;
        let children: f64 = children_of(postmaster)?.map(|stat| stat.own()).sum();
        let after = Stat::read(postmaster)?;
        // One that ended between the two readings would be counted nowhere.
        if before
            .ended_children
            .total_cmp(&after.ended_children)
            .is_eq()
        {
            return Some(after.own() + after.ended_children + children);
        }
    }
}

fn children_of(parent: u32) -> Option<impl Iterator<Item = Stat>> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Some(
        ids.filter_map(Stat::read)
            .filter(move |stat| stat.parent == parent),
    )
}

struct Stat {
    parent: u32,
    user: f64,
    system: f64,
    ended_children: f64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// As proc(5) has it. The second field, a name in brackets, may itself hold spaces and brackets.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
        let seconds = |place: usize| Some(fields.get(place)?.parse::<f64>().ok()? / TICKS);
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            user: seconds(11)?,
            system: seconds(12)?,
            ended_children: seconds(13)? + seconds(14)?,
        })
    }

    fn own(&self) -> f64 {
        self.user + self.system
    }
}

fn peak(pid: u32) -> Option<u64> {
    memory(pid, "VmHWM:")
}

/// The memory that it has resident now, in bytes.
pub(super) fn resident(pid: u32) -> Option<u64> {
    memory(pid, "VmRSS:")
}

fn memory(pid: u32, kind: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(kind))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// A second, on every Linux there is.
const TICKS: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let line = "7 (a) b (c)) S 3 7 7 0 -1 0 0 0 0 0 150 50 20 5 20 0 1 0 9";
        let stat = Stat::parse(line);
        let read = stat.map(|stat| (stat.parent, stat.own(), stat.ended_children));
        assert_eq!(read, Some((3, 2.0, 0.25)));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_used_memory() {
        assert!(
            of(std::process::id())
                .peak
                .is_some_and(|peak| peak > 100_000)
        );
    }
}
