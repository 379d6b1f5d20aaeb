//! A rollout as people read it on a terminal: whole, as one frame of what is drawn again and again, and as lines of what has
//! changed. Pure.

use std::collections::BTreeMap;

use proto::ids::NodeName;
use proto::rollouts::{
    Group, GroupKind, PreCommandsRan, Rollout, RolloutNode, RolloutPreCommands, RolloutSummary,
};
use proto::state::{NodeStage, RolloutPhase};
use proto::timestamp::Timestamp;

use crate::cli::ghosted::evidence;
use crate::cli::output::{Cell, News, Paint, Table, age, facts, or_dash, place, quoted, wrap};

/// Of the nodes that are not moved now more are not shown slot by slot.
const MOST_AT_REST: usize = 8;
/// Of all slots.
const MOST_ROWS: usize = 60;
/// Of the nodes of a batch that is told as one.
const MOST_NAMED: usize = 4;
/// Lines of what pre-commands printed.
const MOST_PRINTED: usize = 40;
/// Lines of a frame: what the smallest usual terminal has.
const FRAME: usize = 22;

pub(super) fn whole(rollout: &Rollout, paint: Paint, now: Timestamp) -> String {
    let Rollout { summary, pre_commands, strategy, ghost, batch: _, nodes: _ } = rollout;
    let progress = match summary.phase.is_over() {
        true => "it is over".to_owned(),
        false => format!("{} of {} slots are stable", summary.progress.stable, summary.progress.total),
    };
    let took = summary.finished_at.map(|end| took(summary.started_at, end));
    let mut lines = vec![
        ("rollout", summary.id.to_string()),
        ("application", summary.application.to_string()),
        ("to", summary.release.to_string()),
        ("from", or_dash(summary.from.as_ref())),
        ("phase", paint.headline(summary.phase.tone(), summary.phase.word())),
        ("progress", progress),
    ];
    lines.extend(batch(rollout).map(|said| ("batch", said)));
    lines.push(("pre-commands", said_of_pre_commands(pre_commands, now)));
    lines.push(("started", format!("{} ago, by {}", age(Some(summary.started_at), now), summary.by)));
    lines.push(match took {
        Some(took) => ("took", took),
        None => ("in this phase", format!("for {}", age(Some(summary.phase_since), now))),
    });
    let mut text = facts(&lines);
    if let Some(strategy) = strategy {
        text.push_str(&wrap(&format!("How it moves: {strategy}.")));
    }
    text.push_str(&sentences(summary));
    text.extend(ghost.as_ref().map(|ghost| evidence(ghost, now)));
    text.push_str(&printed(pre_commands));
    let slots = slots(rollout, paint, false);
    if !slots.is_empty() {
        text.push('\n');
        text.push_str(match summary.phase {
            RolloutPhase::Reverted | RolloutPhase::Failed => "Its nodes when it turned back:\n",
            RolloutPhase::Done | RolloutPhase::Superseded => "Its nodes when it was over:\n",
            _ => "",
        });
        text.push_str(&slots);
    }
    text
}

/// Where another rollout of its application is under way than the one that is shown.
pub(super) fn under_way(other: &RolloutSummary) -> String {
    let RolloutSummary { id, release, phase, .. } = other;
    format!("\nUnder way since: {} ({}), `deployex rollout show {id}`\n", release.version, phase.word())
}

/// What is drawn over and over while one watches: as many lines as a small terminal has.
pub(super) fn frame(rollout: &Rollout, paint: Paint, now: Timestamp) -> String {
    let RolloutSummary { application, release, from, phase, progress, started_at, .. } = &rollout.summary;
    let from = from.as_ref().map(|from| format!("{} → ", from.version)).unwrap_or_default();
    let end = rollout.summary.finished_at.unwrap_or(now);
    let mut text = format!(
        "{application} {from}{}  {}  {}  {} of {} slots stable  {}\n",
        release.version,
        paint.headline(phase.tone(), phase.word()),
        bar(progress.stable, progress.total),
        progress.stable,
        progress.total,
        took(*started_at, end)
    );
    text.extend(batch(rollout).map(|said| wrap(&said)));
    text.push_str(&sentences(&rollout.summary));
    text.push_str(&slots(rollout, paint, true));
    let lines: Vec<&str> = text.lines().collect();
    match lines.get(..FRAME) {
        Some(first) if lines.len() > FRAME => {
            let more = lines.len() - FRAME;
            let lines = if more == 1 { "line" } else { "lines" };
            format!("{}\n… {more} more {lines}\n", first.join("\n"))
        }
        _ => text,
    }
}

fn bar(part: u32, whole: u32) -> String {
    const WIDTH: u64 = 20;
    let full = (u64::from(part.min(whole)) * WIDTH).checked_div(u64::from(whole)).unwrap_or(0);
    (0..WIDTH).map(|at| if at < full { '█' } else { '░' }).collect()
}

/// `1 min 12 s`, as a clock counts.
fn took(from: Timestamp, until: Timestamp) -> String {
    let seconds = until.0.saturating_sub(from.0) / 1_000;
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

fn batch(rollout: &Rollout) -> Option<String> {
    let batch = rollout.batch.as_ref()?;
    let name = if batch.canary { "the canary".to_owned() } else { format!("batch {}", batch.number) };
    let nodes: Vec<&RolloutNode> = rollout.nodes.iter().filter(|node| node.in_batch).collect();
    let moved = nodes.iter().filter(|node| node.stage == NodeStage::Moved).count();
    let promoted = batch.promoted_by.as_ref().map(|by| format!(", promoted by {by}")).unwrap_or_default();
    Some(format!("{name}: {moved} of {} moved{promoted}", counted(nodes.len(), "node")))
}

fn counted(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// Why it is as it is.
fn sentences(summary: &RolloutSummary) -> String {
    let mut text = summary.reason.as_deref().map(wrap).unwrap_or_default();
    // Until the planner has taken it up and says so.
    if let (Some(by), None) = (&summary.aborted_by, &summary.reason) {
        text.push_str(&wrap(&format!("{by} aborted it.")));
    }
    for waiting in &summary.waiting {
        text.push_str(&wrap(&format!("Waiting: {waiting}")));
    }
    text
}

/// Every slot, by batch, and of one that is over every node; of many nodes at rest only how many they are. `brief`: so too of
/// batches of which all has moved.
fn slots(rollout: &Rollout, paint: Paint, brief: bool) -> String {
    if rollout.nodes.is_empty() {
        return String::new();
    }
    let (phase, groups) = (rollout.summary.phase, rollout.groups());
    let settled: Vec<&Group<'_>> = groups.iter().filter(|group| group.is_settled()).collect();
    let moved: usize = settled.iter().map(|group| group.nodes.len()).sum();
    let (fold, batches) = (moved > MOST_AT_REST, settled.len());
    let as_one = fold && brief && batches > 1;
    let mut table = By::new(phase);
    if as_one {
        table.row([
            format!("{batches} batches").into(),
            counted(moved, "node").into(),
            stage(NodeStage::Moved, paint),
        ]);
    }
    for group in &groups {
        let name = group.kind.title(phase);
        let at_rest =
            matches!(group.kind, GroupKind::Moved | GroupKind::ToCome) && group.nodes.len() > MOST_AT_REST;
        match fold && group.is_settled() {
            true if as_one => {}
            true => table.row([name.into(), named(&group.nodes).into(), stage(NodeStage::Moved, paint)]),
            false if at_rest || table.rows >= MOST_ROWS => {
                table.row([name.into(), counted(group.nodes.len(), "node").into(), "".into()]);
            }
            false => group.nodes.iter().for_each(|node| table.node(&name, node, paint)),
        }
    }
    let mut text = table.table.render();
    for node in &rollout.nodes {
        if let Some(because) = &node.because {
            let how = if phase.is_over() { "failed" } else { "is left behind" };
            text.push_str(&wrap(&format!("{} {how}: {because}", node.node)));
        }
    }
    text
}

/// By batch and replica, or by batch and node once it is over.
struct By {
    table: Table,
    over: bool,
    rows: usize,
}

impl By {
    fn new(phase: RolloutPhase) -> Self {
        let over = phase.is_over();
        let header: &[&str] = if over {
            &["BATCH", "NODE", "OUTCOME"]
        } else {
            &["BATCH", "REPLICA", "STATE", "VERSION", "TOLD"]
        };
        Self { table: Table::new(header), over, rows: 0 }
    }

    /// What there is to say of several nodes, or of one as a whole.
    fn row(&mut self, cells: [Cell; 3]) {
        let empty = if self.over { 0 } else { 2 };
        self.table.row(cells.into_iter().chain((0..empty).map(|_| "".into())).collect());
        self.rows += 1;
    }

    fn node(&mut self, batch: &str, node: &RolloutNode, paint: Paint) {
        if self.over {
            return self.row([batch.into(), (&node.node).into(), stage(node.stage, paint)]);
        }
        for [replica, state, version, told] in slots_of(node, paint) {
            self.table.row(vec![batch.into(), replica, state, version, told]);
            self.rows += 1;
        }
    }
}

fn stage(stage: NodeStage, paint: Paint) -> Cell {
    paint.state(stage.tone(), stage.in_the_end())
}

/// The first of them by name.
fn named(nodes: &[&RolloutNode]) -> String {
    let names: Vec<&str> = nodes.iter().take(MOST_NAMED).map(|node| node.node.as_str()).collect();
    let more = nodes.len().saturating_sub(MOST_NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", names.join(", "))
}

fn slots_of(node: &RolloutNode, paint: Paint) -> Vec<[Cell; 4]> {
    if node.slots.is_empty() {
        return vec![[(&node.node).into(), "-".into(), "-".into(), "-".into()]];
    }
    let row = |slot: &proto::rollouts::RolloutSlot| {
        [
            place(&node.node, slot.slot).into(),
            paint.state(slot.state.tone(), slot.state),
            or_dash(slot.running.as_ref().map(|it| &it.version)).into(),
            if slot.told { "yes" } else { "not yet" }.into(),
        ]
    };
    node.slots.iter().map(row).collect()
}

fn said_of_pre_commands(state: &RolloutPreCommands, now: Timestamp) -> String {
    match state {
        RolloutPreCommands::NotNeeded => "none".to_owned(),
        RolloutPreCommands::Waiting => "not run yet".to_owned(),
        RolloutPreCommands::Running { node, slot } => format!("running on {}", place(node, *slot)),
        RolloutPreCommands::EveryReplica { passed: 0, .. } => "each replica runs its own".to_owned(),
        RolloutPreCommands::EveryReplica { passed, .. } => {
            format!("each replica runs its own, {passed} passed")
        }
        RolloutPreCommands::Passed { ran: None } => "passed".to_owned(),
        RolloutPreCommands::Passed { ran: Some(ran) } => {
            format!("passed on {}, {} ago", place(&ran.node, ran.slot), age(Some(ran.at), now))
        }
        RolloutPreCommands::Failed { error, .. } => format!("failed: {error}"),
    }
}

/// What they have printed: one for all, or some replicas, or first the one that failed.
fn printed(state: &RolloutPreCommands) -> String {
    let told = state.ran().iter().filter(|ran| !ran.output.is_empty());
    let said = |ran: &PreCommandsRan| {
        let whose = match state {
            RolloutPreCommands::EveryReplica { .. } | RolloutPreCommands::Failed { .. } => {
                format!(" of {}", place(&ran.node, ran.slot))
            }
            _ => String::new(),
        };
        format!("The pre-commands{whose} printed:\n{}", quoted(&ran.output, MOST_PRINTED))
    };
    told.map(said).collect()
}

/// What was seen last, so that a line is said for every change and for nothing else.
#[derive(Default)]
pub(in crate::cli) struct Changes {
    phase: Option<RolloutPhase>,
    batch: u32,
    stages: BTreeMap<NodeName, NodeStage>,
    waiting: News,
}

impl Changes {
    pub(super) fn lines(&mut self, rollout: &Rollout) -> Vec<String> {
        let summary = &rollout.summary;
        let (mut lines, first) = (Vec::new(), self.phase.is_none());
        if self.phase.replace(summary.phase) != Some(summary.phase) {
            let because = summary.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let (app, version) = (&summary.application, &summary.release.version);
            lines.push(format!("The rollout of {app} {version} is {}{because}", summary.phase));
        }
        if let Some(batch) = rollout.batch.as_ref().filter(|batch| batch.number != self.batch) {
            self.batch = batch.number;
            let nodes: Vec<&str> =
                rollout.nodes.iter().filter(|node| node.in_batch).map(|node| node.node.as_str()).collect();
            let name = if batch.canary { "The canary".to_owned() } else { format!("Batch {}", batch.number) };
            lines.push(format!("{name}: {}", nodes.join(", ")));
        }
        // Once it is over they are told as they were when it turned back.
        for node in rollout.nodes.iter().filter(|_| !summary.phase.is_over()) {
            let before = self.stages.insert(node.node.clone(), node.stage);
            // At first all that is said is what is not as it was: those to come are all of them.
            let told = if first { node.stage != NodeStage::ToCome } else { before != Some(node.stage) };
            if told && before != Some(node.stage) {
                let because = node.because.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
                lines.push(format!("{} is {}{because}", node.node, node.stage.words()));
            }
        }
        lines.extend(self.waiting.of(&summary.waiting).into_iter().map(|it| format!("Waiting: {it}")));
        lines
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proto::rollouts::{PreCommandsRan, RolloutBatch, RolloutSlot};
    use proto::state::SlotState;

    use super::super::tests::running;
    use super::*;
    use crate::cli::app::tests::release;

    fn node(name: &str, stage: NodeStage, in_batch: bool, slots: &[(SlotState, &str, bool)]) -> RolloutNode {
        let slot = |(at, (state, version, told)): (usize, &(SlotState, &str, bool))| RolloutSlot {
            slot: (at + 1).to_string().parse().unwrap(),
            state: *state,
            running: Some(release(version)),
            told: *told,
        };
        let slots = slots.iter().enumerate().map(slot).collect();
        let batch = match stage {
            NodeStage::Moved | NodeStage::Moving => Some(if in_batch { 2 } else { 1 }),
            _ => None,
        };
        let canary = batch == Some(1);
        RolloutNode { node: name.parse().unwrap(), stage, in_batch, batch, canary, because: None, slots }
    }

    /// The second batch moves; one node failed, one is lost.
    fn rollout() -> Rollout {
        let (old, new) = ((SlotState::Stable, "2.4.1", false), (SlotState::Stable, "2.5.0", true));
        let mut failed = node("web-5", NodeStage::Failed, false, &[old]);
        failed.because = Some("slot 1 was not stable within 10 min".to_owned());
        Rollout {
            summary: running(),
            pre_commands: RolloutPreCommands::Passed {
                ran: Some(PreCommandsRan {
                    node: "web-1".parse().unwrap(),
                    slot: "1".parse().unwrap(),
                    at: Timestamp(100_000),
                    output: "$ eval Shop.migrate() (took 1.2 s)\ncreated \u{1b}[31mtables\n".to_owned(),
                }),
            },
            strategy: Some("start_first, batches of 2 nodes by zone, no replica missing".to_owned()),
            batch: Some(RolloutBatch {
                number: 2,
                canary: false,
                stable_since: None,
                promoted_by: None,
                may_be_promoted: false,
            }),
            ghost: None,
            nodes: vec![
                node("web-1", NodeStage::Moved, false, &[new, new]),
                node("web-2", NodeStage::Moving, true, &[new, (SlotState::Ready, "2.5.0", true), old]),
                node("web-3", NodeStage::Moved, true, &[new]),
                node("web-4", NodeStage::ToCome, false, &[old, old]),
                failed,
                node("web-6", NodeStage::Lost, false, &[(SlotState::Unknown, "2.4.1", false)]),
                node("web-7", NodeStage::ToCome, false, &[]),
            ],
        }
    }

    #[test]
    fn a_rollout_shows_its_batches_and_says_what_it_waits_for() {
        insta::assert_snapshot!(whole(&rollout(), Paint { on: false }, Timestamp(200_000)));
    }

    #[test]
    fn a_frame_fits_on_a_small_terminal() {
        insta::assert_snapshot!(frame(&rollout(), Paint { on: false }, Timestamp(200_000)));
        let mut large = rollout();
        let old = (SlotState::Stable, "2.4.1", false);
        for number in 10..50 {
            large.nodes.push(node(&format!("web-{number}"), NodeStage::ToCome, false, &[old]));
            large.nodes.push(node(&format!("db-{number}"), NodeStage::Moving, true, &[old, old]));
        }
        let frame = frame(&large, Paint { on: false }, Timestamp(200_000));
        assert!(frame.lines().count() <= FRAME + 1, "{frame}");
        assert!(frame.ends_with("more lines\n"), "{frame}");
        let whole = whole(&large, Paint { on: false }, Timestamp(200_000));
        assert!(whole.lines().count() < 140 && whole.contains("42 nodes"), "{whole}");
    }

    /// Forty batches of two nodes, the first a canary; all has moved but what is told otherwise.
    fn many(phase: RolloutPhase) -> Rollout {
        let mut many = rollout();
        many.summary.phase = phase;
        many.batch = None;
        let of = |number: u32| {
            let slots = [(SlotState::Stable, "2.5.0", true)];
            let slots = if phase.is_over() { &slots[..0] } else { &slots[..] };
            let it = node(&format!("app-{number:02}"), NodeStage::Moved, false, slots);
            let batch = Some(number.div_ceil(2));
            RolloutNode { batch, canary: batch == Some(1), ..it }
        };
        many.nodes = (1..=80).map(of).collect();
        many
    }

    #[test]
    fn many_batches_that_have_moved_are_one_line_of_a_frame_and_a_line_each_of_the_whole() {
        let watching = many(RolloutPhase::Watching);
        let drawn = frame(&watching, Paint { on: false }, Timestamp(200_000));
        assert!(drawn.contains("40 batches  80 nodes  ● moved"), "{drawn}");
        let whole = whole(&watching, Paint { on: false }, Timestamp(200_000));
        assert!(whole.contains("Canary    app-01, app-02  ● moved"), "{whole}");
        assert!(whole.contains("Batch 40  app-79, app-80  ● moved"), "{whole}");
    }

    #[test]
    fn one_that_is_over_tells_what_became_of_its_nodes() {
        let mut over = many(RolloutPhase::Reverted);
        over.summary.finished_at = Some(Timestamp(180_000));
        over.nodes.truncate(12);
        over.nodes[11].stage = NodeStage::Failed;
        over.nodes[11].because = Some("slot 1 was not stable within 10 min".to_owned());
        over.nodes[10].stage = NodeStage::Moving;
        over.nodes.push(node("app-90", NodeStage::Lost, false, &[]));
        over.nodes.push(node("app-91", NodeStage::ToCome, false, &[]));
        insta::assert_snapshot!(whole(&over, Paint { on: false }, Timestamp(200_000)));
        assert_eq!(
            Changes::default().lines(&over),
            [
                "The rollout of myapp 2.5.0 is reverted",
                "Waiting: slot 2 on web-1 must stay ready for 18 s more"
            ]
        );
    }

    #[test]
    fn each_change_is_said_once() {
        let (mut changes, mut rollout) = (Changes::default(), rollout());
        let first = changes.lines(&rollout);
        assert_eq!(
            first,
            [
                "The rollout of myapp 2.5.0 is running",
                "Batch 2: web-2, web-3",
                "web-1 is moved",
                "web-2 is moving",
                "web-3 is moved",
                "web-5 is left behind: slot 1 was not stable within 10 min",
                "web-6 is lost",
                "Waiting: slot 2 on web-1 must stay ready for 18 s more",
            ]
        );
        rollout.summary.waiting = vec!["slot 2 on web-1 must stay ready for 17 s more".to_owned()];
        assert_eq!(changes.lines(&rollout), [""; 0], "only a time ran");
        rollout.nodes[1].stage = NodeStage::Moved;
        rollout.nodes[3].stage = NodeStage::Moving;
        assert_eq!(changes.lines(&rollout), ["web-2 is moved", "web-4 is moving"]);
        rollout.summary.phase = RolloutPhase::Watching;
        rollout.summary.waiting.clear();
        assert_eq!(changes.lines(&rollout), ["The rollout of myapp 2.5.0 is watching"]);
    }

    #[test]
    fn time_is_told_as_a_clock_counts_it() {
        let told = |millis: u64| took(Timestamp(1_000), Timestamp(1_000 + millis));
        assert_eq!([told(900), told(72_000), told(3_720_000)], ["0 s", "1 min 12 s", "1 h 2 min"]);
        assert_eq!(bar(0, 0).chars().filter(|it| *it == '█').count(), 0);
        assert_eq!(bar(3, 6).chars().filter(|it| *it == '█').count(), 10);
    }
}
