//! Deaths for want of memory in a group, as they come: the kernel only counts them, from the making of the group on.
//!
//! A program may live for months with one of its children in that count. Whoever is to tell what the program itself died of
//! looks again and again, and lays it only to a death that it saw shortly before. Time comes in as a value.

use super::{Cgroup, field};

/// From when it was seen: for so long a death may be why the program ends. One that had much memory takes seconds to give it
/// back, and whoever looks is woken by its children meanwhile.
const RECENT_MS: u64 = 10_000;

/// That the kernel ended somebody in a group for want of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfMemory {
    /// The limit that the group went over, in bytes; `None`: it was the host that had no memory left.
    pub(crate) limit: Option<u64>,
}

/// What was seen of them in one group.
#[derive(Clone, Debug)]
pub(crate) struct Deaths {
    group: Cgroup,
    /// At the last death that was seen, or when it was begun to look.
    counted: Counts,
    last: Option<Death>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    /// What the group's own limit has brought about …
    over_limit: u64,
    /// … and also what the whole host has.
    deaths: u64,
}

#[derive(Clone, Copy, Debug)]
struct Death {
    seen_at: u64,
    over_limit: bool,
}

impl Deaths {
    /// Those from now on; `None` where this host does not count them.
    pub(crate) fn from_now_on(group: &Cgroup) -> Option<Self> {
        Some(Self { group: group.clone(), counted: Counts::of(group)?, last: None })
    }

    /// To be called every few seconds, and when there is something to tell. `now`: milliseconds of any one clock.
    pub(crate) fn look(&mut self, now: u64) {
        if let Some(counts) = Counts::of(&self.group).filter(|it| it.deaths > self.counted.deaths) {
            let over_limit = counts.over_limit > self.counted.over_limit;
            self.last = Some(Death { seen_at: now, over_limit });
            self.counted = counts;
        }
    }

    /// The last, if that was shortly before.
    pub(crate) fn recent(&self, now: u64) -> Option<OutOfMemory> {
        let death = self.last.filter(|it| now.saturating_sub(it.seen_at) <= RECENT_MS)?;
        let limit = || self.group.number("memory.max");
        Some(OutOfMemory { limit: death.over_limit.then(limit).flatten() })
    }
}

impl Counts {
    fn of(group: &Cgroup) -> Option<Self> {
        let events = group.read("memory.events")?;
        let count = |name| field(&events, name).unwrap_or(0);
        Some(Self { over_limit: count("oom"), deaths: count("oom_kill") })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// As the kernel lays them out.
    fn counted(folder: &Path, oom: u32, kills: u32) {
        let events = format!("low 0\nhigh 0\nmax 9\noom {oom}\noom_kill {kills}\n");
        fs::write(folder.join("memory.events"), events).unwrap();
    }

    fn group(max: &str) -> (tempfile::TempDir, Deaths) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("memory.max"), max).unwrap();
        counted(folder.path(), 0, 0);
        let deaths = Deaths::from_now_on(&Cgroup::at(folder.path())).unwrap();
        (folder, deaths)
    }

    #[test]
    fn whose_memory_was_too_little_is_told_apart() {
        let told = |oom, kills, max| {
            let (folder, mut deaths) = group(max);
            counted(folder.path(), oom, kills);
            deaths.look(5);
            deaths.recent(5)
        };
        assert_eq!(told(1, 1, "1048576\n"), Some(OutOfMemory { limit: Some(1 << 20) }));
        assert_eq!(told(0, 1, "1048576\n"), Some(OutOfMemory { limit: None }));
        assert_eq!(told(0, 1, "max\n"), Some(OutOfMemory { limit: None }));
        // It came close and found room.
        assert_eq!(told(1, 0, "1048576\n"), None);
        assert!(Deaths::from_now_on(&Cgroup::at("/nowhere")).is_none());
    }

    #[test]
    fn a_death_of_days_ago_is_not_laid_to_the_end_of_today() {
        let (folder, mut deaths) = group("1048576\n");
        counted(folder.path(), 1, 1);
        deaths.look(1_000);
        // Its own end may take its time, and others may look meanwhile.
        for now in [1_000, 2_000, 1_000 + RECENT_MS] {
            deaths.look(now);
            assert_eq!(deaths.recent(now), Some(OutOfMemory { limit: Some(1 << 20) }));
        }
        let friday = 4 * 24 * 3_600_000;
        deaths.look(friday);
        assert_eq!(deaths.recent(friday), None);
        // Nor is its limit to what the host then has no memory for.
        counted(folder.path(), 1, 2);
        deaths.look(friday + 1);
        assert_eq!(deaths.recent(friday + 1), Some(OutOfMemory { limit: None }));
    }

    #[test]
    fn what_was_counted_before_is_no_news() {
        let (folder, _) = group("max\n");
        counted(folder.path(), 3, 3);
        let mut deaths = Deaths::from_now_on(&Cgroup::at(folder.path())).unwrap();
        deaths.look(1);
        assert_eq!(deaths.recent(1), None);
    }
}
