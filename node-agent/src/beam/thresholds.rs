//! When the virtual machine of a replica has passed a limit of its application's `monitoring`. Pure.
//!
//! ```text
//!   normal ──3 looks ≥ warning──▶ warning ──3 looks ≥ restart──▶ exceeded
//!      ▲◀── < warning − 2 ───────────┘ ◀────── < restart − 2 ───────┘
//! ```
//! Nothing is restarted for it here: the control plane is told, and alone knows whether another replica of the application is
//! away, on whatever host.

use proto::state::{HostLevel, VmFigure};
use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::gauge::{Bounds, Gauge};

/// What is watched. `None`: not watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    pub atom: Option<Bounds>,
    pub process: Option<Bounds>,
    pub port: Option<Bounds>,
    pub memory: Option<Bounds>,
    /// What memory is a share of, in bytes; `None`: all that the host has.
    pub memory_max: Option<u64>,
}

impl Watched {
    fn of(&self, figure: VmFigure) -> Option<Bounds> {
        match figure {
            VmFigure::Atom => self.atom,
            VmFigure::Process => self.process,
            VmFigure::Port => self.port,
            VmFigure::Memory => self.memory,
        }
    }
}

/// How much there is of something, and how much there may be; of memory in bytes. A limit of 0 is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub count: u64,
    pub limit: u64,
}

/// One look at a virtual machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    pub now: Time,
    /// For people.
    pub unix_ms: u64,
    pub atoms: Used,
    pub processes: Used,
    pub ports: Used,
    pub memory: Used,
}

impl Look {
    fn of(&self, figure: VmFigure) -> Used {
        match figure {
            VmFigure::Atom => self.atoms,
            VmFigure::Process => self.processes,
            VmFigure::Port => self.ports,
            VmFigure::Memory => self.memory,
        }
    }
}

/// A level that is another one now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub figure: VmFigure,
    pub level: HostLevel,
    pub used: Used,
    pub bounds: Bounds,
}

/// Where each figure of one process stands. It must survive the agent, so that its successor warns of nothing a second time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Levels {
    atom: Level,
    process: Level,
    port: Level,
    memory: Level,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Level {
    gauge: Gauge,
    /// When the level became what it is.
    count: u64,
    limit: u64,
    since_unix_ms: u64,
}

/// A figure that is above one of its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    pub figure: VmFigure,
    pub level: HostLevel,
    /// When the level became this one.
    pub used: Used,
    pub since_unix_ms: u64,
}

impl Levels {
    /// Takes a look in: every level that is another one by it.
    pub fn look(&mut self, watched: &Watched, look: &Look) -> Vec<Change> {
        let mut changes = Vec::new();
        for figure in VmFigure::ALL.iter().copied() {
            let (used, level) = (look.of(figure), self.of_mut(figure));
            let Some(bounds) = watched.of(figure) else {
                // Nobody asks any more: what was passed is forgotten without a word.
                *level = Level::default();
                continue;
            };
            if used.limit > 0 && level.gauge.look(bounds, percent(used), look.now) {
                (level.count, level.limit, level.since_unix_ms) = (used.count, used.limit, look.unix_ms);
                changes.push(Change { figure, level: level.gauge.level, used, bounds });
            }
        }
        changes
    }

    /// What is not within its limits.
    pub fn passed(&self) -> Vec<Passed> {
        let passed = |figure: &VmFigure| {
            let Level { gauge, count, limit, since_unix_ms } = self.of(*figure);
            let used = Used { count: *count, limit: *limit };
            let passed = Passed { figure: *figure, level: gauge.level, used, since_unix_ms: *since_unix_ms };
            (gauge.level != HostLevel::Normal).then_some(passed)
        };
        VmFigure::ALL.iter().filter_map(passed).collect()
    }

    fn of(&self, figure: VmFigure) -> &Level {
        match figure {
            VmFigure::Atom => &self.atom,
            VmFigure::Process => &self.process,
            VmFigure::Port => &self.port,
            VmFigure::Memory => &self.memory,
        }
    }

    fn of_mut(&mut self, figure: VmFigure) -> &mut Level {
        match figure {
            VmFigure::Atom => &mut self.atom,
            VmFigure::Process => &mut self.process,
            VmFigure::Port => &mut self.port,
            VmFigure::Memory => &mut self.memory,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a percentage")]
fn percent(used: Used) -> f64 {
    100.0 * used.count as f64 / used.limit as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const WATCHED: Watched = Watched {
        atom: Some(Bounds { warning: 75, restart: Some(90) }),
        process: Some(Bounds { warning: 50, restart: None }),
        port: None,
        memory: None,
        memory_max: None,
    };

    struct Vm {
        levels: Levels,
        watched: Watched,
        now: u64,
    }

    impl Vm {
        fn new() -> Self {
            Self { levels: Levels::default(), watched: WATCHED, now: 0 }
        }

        /// So many looks at atoms and processes, of a thousand each.
        fn looks(&mut self, times: u64, atoms: u64, processes: u64) -> Vec<(VmFigure, HostLevel)> {
            let used = |count| Used { count, limit: 1_000 };
            let look = |now| {
                let (atoms, processes, ports) = (used(atoms), used(processes), used(1_000));
                Look { now: Time(now), unix_ms: now, atoms, processes, ports, memory: used(1_000) }
            };
            let mut changes = Vec::new();
            for _ in 0..times {
                self.now += 2_000;
                changes.extend(self.levels.look(&self.watched, &look(self.now)));
            }
            changes.into_iter().map(|it| (it.figure, it.level)).collect()
        }
    }

    #[test]
    fn each_figure_has_its_own_level_and_what_nobody_watches_has_none() {
        use HostLevel::{Exceeded, Normal, Warning};
        let mut vm = Vm::new();
        assert_eq!(vm.looks(9, 100, 100), []);
        assert_eq!(vm.looks(9, 800, 999), [(VmFigure::Atom, Warning), (VmFigure::Process, Warning)]);
        assert_eq!(vm.looks(9, 950, 999), [(VmFigure::Atom, Exceeded)]);
        let passed: Vec<_> = vm.levels.passed().iter().map(|it| (it.figure, it.used.count)).collect();
        assert_eq!(passed, [(VmFigure::Atom, 950), (VmFigure::Process, 999)]);
        assert_eq!(vm.looks(1, 100, 100), [(VmFigure::Atom, Normal), (VmFigure::Process, Normal)]);
        assert_eq!(vm.levels.passed(), []);
    }

    #[test]
    fn a_figure_that_wobbles_about_a_limit_is_one_change() {
        let mut vm = Vm::new();
        let changes: Vec<_> = (0..100).flat_map(|n| vm.looks(3, 890 + 10 * (n % 3), 0)).collect();
        assert_eq!(changes, [(VmFigure::Atom, HostLevel::Warning), (VmFigure::Atom, HostLevel::Exceeded)]);
    }

    #[test]
    fn limits_that_are_lifted_are_forgotten_and_others_count_from_the_next_look() {
        let mut vm = Vm::new();
        vm.looks(3, 950, 0);
        vm.watched.atom = Some(Bounds { warning: 75, restart: None });
        assert_eq!(vm.looks(1, 950, 0), [(VmFigure::Atom, HostLevel::Warning)]);
        vm.watched = Watched::default();
        assert_eq!((vm.looks(3, 950, 950), vm.levels.passed()), (vec![], vec![]));
    }

    #[test]
    fn what_is_remembered_warns_of_nothing_a_second_time() {
        let mut vm = Vm::new();
        vm.looks(3, 950, 600);
        let remembered = serde_json::to_string(&vm.levels).unwrap();
        let mut next = Vm { levels: serde_json::from_str(&remembered).unwrap(), ..Vm::new() };
        assert_eq!(next.looks(9, 950, 600), []);
        assert_eq!(next.levels.passed(), vm.levels.passed());
        assert_eq!(serde_json::from_str::<Levels>("{}").unwrap(), Levels::default());
    }

    #[test]
    fn a_limit_that_is_not_known_is_not_passed() {
        let (mut levels, watched) = (Levels::default(), Watched { memory: WATCHED.atom, ..WATCHED });
        for n in 1..9 {
            let used = Used { count: n, limit: 0 };
            assert_eq!(levels.look(&watched, &Look { now: Time(n), memory: used, ..Look::default() }), []);
        }
    }
}
