//! At which shares of a host's memory and disk its agent warns, or restarts a replica; and at which shares of a virtual machine's
//! limits its replica is warned of, or restarted.

use proto::state::VmFigure;
use serde::{Deserialize, Serialize};

use super::Millis;

/// Stored as JSON, so that every node is told the same. `None`: not watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostMonitoring {
    pub memory: Option<Threshold>,
    pub disk: Option<Threshold>,
}

/// Of the virtual machine of each replica. `None`: not watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VmMonitoring {
    pub atom: Option<Threshold>,
    pub process: Option<Threshold>,
    pub port: Option<Threshold>,
    /// Of the limit that the replica has, else of its host's memory.
    pub memory: Option<Threshold>,
}

impl VmMonitoring {
    pub fn of(&self, figure: VmFigure) -> Option<Threshold> {
        let Self { atom, process, port, memory } = *self;
        match figure {
            VmFigure::Atom => atom,
            VmFigure::Process => process,
            VmFigure::Port => port,
            VmFigure::Memory => memory,
        }
    }

    pub fn set(&mut self, figure: VmFigure, threshold: Threshold) {
        let one = match figure {
            VmFigure::Atom => &mut self.atom,
            VmFigure::Process => &mut self.process,
            VmFigure::Port => &mut self.port,
            VmFigure::Memory => &mut self.memory,
        };
        *one = Some(threshold);
    }
}

/// In percent of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threshold {
    pub warning: u8,
    /// `None`: nothing is restarted.
    pub restart: Option<u8>,
    /// At least so long between two restarts.
    pub cooldown: Millis,
}

impl Threshold {
    pub const WARNING: u8 = 75;
    pub const RESTART: u8 = 90;
    pub const COOLDOWN_MS: u64 = 300_000;
    /// Of disks, where nothing is said of them.
    pub const OF_DISKS: Self = Self { warning: 90, restart: None, cooldown: Millis(Self::COOLDOWN_MS) };
}

impl HostMonitoring {
    /// Where it is remembered in the database.
    pub const SETTING: &'static str = "configuration.host_monitoring";
}

/// A type that is not listed is not watched, as in `DeployEx`; but a disk fills on every host one day, takes down whatever
/// runs there, and the warning restarts nothing: it is watched where nobody speaks of it.
impl Default for HostMonitoring {
    fn default() -> Self {
        Self { memory: None, disk: Some(Threshold::OF_DISKS) }
    }
}
