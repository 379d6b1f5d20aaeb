//! Invented things of every kind, for tests and for the gallery of components.

#![expect(clippy::panic, reason = "what is invented here is written in this program")]

use std::collections::BTreeMap;

use proto::apps::{Application, ApplicationSummary, PortBase, Settings};
use proto::events::Event;
use proto::ids::{Digest, ReleaseKey, Slot};
use proto::metrics::{EVERY_MS, HostHistory, HostPoint, VM_EVERY_MS, VmBound, VmBounds, VmHistory, VmPoint};
use proto::nodes::{HostUsage, NodeSummary, Pressure};
use proto::releases::Release;
use proto::replicas::{PortInUse, Replica, ReplicaTile, Usage};
use proto::rollouts::{
    Progress, Rollout, RolloutBatch, RolloutNode, RolloutPreCommands, RolloutSlot, RolloutSummary,
};
use proto::state::{Language, Liveness, NodeStage, RolloutPhase, Severity, SlotState, Strategy, Tone};
use proto::timestamp::Timestamp;

/// The moment at which all of them are looked at.
pub const NOW: Timestamp = Timestamp(1_795_417_200_000);

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// # Panics
///
/// Where the text is none of the kind: these are written in this program.
fn parsed<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is not what it is used for"))
}

pub fn key(version: &str) -> ReleaseKey {
    ReleaseKey { version: parsed(version), sha256: Digest([7; 32]) }
}

fn slot(number: u32) -> Slot {
    Slot::new(number).unwrap_or_else(|error| panic!("{error}"))
}

pub fn replica(app: &str, node: &str, number: u32, state: SlotState) -> Replica {
    let runs = !matches!(state, SlotState::Empty | SlotState::Preparing);
    Replica {
        application: parsed(app),
        node: parsed(node),
        slot: slot(number),
        state,
        running: runs.then(|| key("1.0.0")),
        assigned: Some(key("1.0.0")),
        pid: runs.then_some(4_000 + number),
        started_at: runs.then_some(Timestamp(NOW.0 - 7_500_000)),
        ports: vec![PortInUse {
            key: "PORT".into(),
            port: u16::try_from(4_000 + number % 1_000).unwrap_or(4_000),
        }],
        crash_restarts: u32::from(state == SlotState::BackingOff) * 3,
        forced_restarts: 0,
        crashes_since_deploy: 0,
        last_exit: None,
        failed_check: None,
        next_start_at: (state == SlotState::BackingOff).then_some(Timestamp(NOW.0 + 8_000)),
        fault: (state == SlotState::Failed).then(|| "pre-command migrate ended with exit status 1".into()),
        staging: None,
        pre_commands: None,
        usage: runs.then_some(Usage {
            cpu_percent: 3.2,
            memory_bytes: 71 << 20,
            pids: Some(24),
            memory_limit_bytes: None,
        }),
        erlang: None,
        vm: None,
        upgrade: None,
        waiting_settings: Vec::new(),
        reported_at: Some(NOW),
    }
}

pub fn tile(node: &str, number: u32, state: SlotState) -> ReplicaTile {
    ReplicaTile { node: parsed(node), slot: slot(number), state, version: Some(parsed("1.0.0")) }
}

pub fn summary(name: &str) -> ApplicationSummary {
    ApplicationSummary {
        name: parsed(name),
        language: Language::Elixir,
        tone: Tone::Ok,
        sentence: "3 of 3 replicas are ready".into(),
        needs_attention: false,
        in_force: Some(key("1.0.0")),
        in_force_since: Some(Timestamp(NOW.0 - 7_500_000)),
        wanted: Some(key("1.0.0")),
        replicas_wanted: 3,
        replicas_ready: 3,
        rollout: None,
        ghosted: 0,
        replicas: (1..=3).map(|number| tile("node-1", number, SlotState::Stable)).collect(),
    }
}

pub fn application(name: &str) -> Application {
    Application {
        summary: summary(name),
        settings: Settings {
            replicas_per_node: 3,
            strategy: Strategy::StartFirst,
            stable_after_ms: 30_000,
            rollback_timeout_ms: 600_000,
            ports: vec![PortBase { key: "PORT".into(), base: 4_000 }],
            run_as: "deployex".into(),
            nodes: vec!["role=web".into()],
            env_keys: vec!["PHX_HOST".into()],
        },
        release_fault: None,
        slots: (1..=3).map(|number| replica(name, "node-1", number, SlotState::Stable)).collect(),
        current_rollout: None,
        ghosts: Vec::new(),
        pinned: None,
        rolls_back_to: None,
    }
}

pub fn rollout(app: &str, to: &str, from: &str) -> Rollout {
    Rollout {
        summary: RolloutSummary {
            id: parsed(ID),
            application: parsed(app),
            release: key(to),
            from: Some(key(from)),
            phase: RolloutPhase::Running,
            reason: None,
            by: "bucket".into(),
            started_at: Timestamp(NOW.0 - 42_000),
            phase_since: Timestamp(NOW.0 - 42_000),
            finished_at: None,
            paused_by: None,
            aborted_by: None,
            left: None,
            progress: Progress { stable: 2, total: 6 },
            waiting: vec!["slot 2 on node-3 must stay ready for 18 s more".into()],
        },
        pre_commands: RolloutPreCommands::NotNeeded,
        strategy: Some("start_first, batches of 2 nodes by zone, no replica missing".into()),
        batch: None,
        ghost: None,
        nodes: Vec::new(),
    }
}

pub fn rollout_node(name: &str, stage: NodeStage, slots: Vec<RolloutSlot>) -> RolloutNode {
    RolloutNode {
        node: parsed(name),
        stage,
        in_batch: false,
        batch: None,
        canary: false,
        because: None,
        slots,
    }
}

pub fn batch(number: u32, canary: bool) -> RolloutBatch {
    RolloutBatch { number, canary, stable_since: None, promoted_by: None, may_be_promoted: false }
}

pub fn release(version: &str) -> Release {
    Release {
        key: key(version),
        size: 52_428_800,
        pre_commands: Vec::new(),
        recorded_at: Timestamp(NOW.0 - 86_400_000),
        in_force: false,
        wanted: false,
        ghosted: None,
    }
}

pub fn node_summary(name: &str) -> NodeSummary {
    NodeSummary {
        id: parsed(ID),
        name: parsed(name),
        liveness: Liveness::Up,
        labels: BTreeMap::from([("role".to_owned(), "web".to_owned())]),
        service: proto::state::Service::Open,
        agent_version: "0.1.0".into(),
        heard_at: Some(NOW),
        replicas: 3,
        replicas_ready: 3,
        usage: Some(HostUsage {
            cpu_percent: 23.0,
            memory_used_bytes: 3 << 30,
            memory_total_bytes: 8 << 30,
            disk_used_bytes: 40 << 30,
            disk_total_bytes: 100 << 30,
            load: [0.4, 0.5, 0.6],
            uptime_ms: 864_000_000,
        }),
        warnings: Vec::new(),
    }
}

/// An hour of a host with four cores, whose agent was away for some minutes and whose memory fills up.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "invented"
)]
pub fn host_history() -> HostHistory {
    let points = (0..720_u64).filter(|n| !(260..300).contains(n)).map(|n| {
        let wave = |period: u64, high: f32| high * (1.0 + (n as f32 * 6.3 / period as f32).sin()) / 2.0;
        let cpu = 8.0 + wave(180, 40.0) + wave(17, 9.0);
        let core = |shift: u64| (cpu + wave(23 + shift * 7, 30.0) - 15.0).clamp(0.0, 100.0) as u8;
        HostPoint {
            at: Timestamp(NOW.0 - (719 - n) * EVERY_MS),
            cpu,
            cores: (0..4).map(core).collect(),
            memory_used: (3 << 30) + n * 6_200_000,
            swap_used: 0,
            load: 0.4 + wave(200, 2.5),
            pressure: Some(Pressure {
                cpu_some: wave(90, 4.0),
                io_some: wave(40, 1.5),
                ..Pressure::default()
            }),
            disk_used: (40 << 30) + n * 1_000_000,
            disk_read: if n % 60 < 4 { 4_000_000.0 } else { 20_000.0 },
            disk_write: 300_000.0 + wave(30, 900_000.0),
            network_received: 900_000.0 + wave(120, 1_500_000.0),
            network_sent: 400_000.0 + wave(70, 700_000.0),
        }
    });
    HostHistory { node: parsed("node-1"), since: None, every_ms: EVERY_MS, points: points.collect() }
}

/// An hour of a VM whose processes grow past what is warned of, and that was started anew in the middle of it.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "invented"
)]
pub fn vm_history() -> VmHistory {
    let points = (0..1_800_u64).filter(|n| !(900..940).contains(n)).map(|n| {
        let wave = |period: u64, high: f32| high * (1.0 + (n as f32 * 6.3 / period as f32).sin()) / 2.0;
        let (age, ets) = (n % 940, (3 << 20) + n * 2_000);
        VmPoint {
            at: Timestamp(NOW.0 - (1_799 - n) * VM_EVERY_MS),
            memory: (48 << 20) + age * 30_000 + ets,
            memory_processes: (14 << 20) + age * 22_000,
            memory_atom: 450_000,
            memory_binary: (2 << 20) + wave(90, 6_000_000.0) as u64,
            memory_code: 9 << 20,
            memory_ets: ets,
            processes: 92 + (age / 4) as u32,
            ports: 6 + wave(300, 9.0) as u32,
            atoms: 9_600 + (n / 200) as u32,
            ets_tables: 38,
            run_queue: wave(45, 3.4) as u32,
            longest_run_queue: wave(45, 2.2) as u32,
            schedulers: Some(6.0 + wave(200, 30.0)),
            reductions: 1_200_000.0 + wave(150, 900_000.0),
            collections: 90.0 + wave(60, 140.0),
            reclaimed: 2_000_000.0 + wave(60, 9_000_000.0),
            input: 40_000.0 + wave(110, 90_000.0),
            output: 210_000.0 + wave(170, 400_000.0),
        }
    });
    let bound = |limit| VmBound { limit, warning_percent: None, restart_percent: None };
    VmHistory {
        node: parsed("node-1"),
        application: parsed("shop"),
        slot: slot(1),
        since: None,
        every_ms: VM_EVERY_MS,
        bounds: VmBounds {
            processes: Some(VmBound { warning_percent: Some(20), restart_percent: Some(40), ..bound(1_024) }),
            atoms: Some(bound(1_048_576)),
            ets_tables: Some(bound(8_192)),
            memory: Some(VmBound {
                warning_percent: Some(75),
                restart_percent: Some(90),
                ..bound(100 << 20)
            }),
            ports: None,
        },
        points: points.collect(),
    }
}

pub fn event(id: u128, text: &str) -> Event {
    Event {
        id: parsed(&format!("{id:032x}")),
        at: NOW,
        severity: Severity::Info,
        kind: "test".into(),
        text: text.into(),
        application: None,
        node: None,
        slot: None,
        rollout: None,
        by: None,
        data: BTreeMap::new(),
    }
}
