//! What an application is set to, drawn: by which strategy and how many replicas, on each host or spread over them; how many
//! hosts make a batch, counted or as a share, and what orders them; whether a canary goes first, how long it soaks or that a
//! person is to promote it; how long the next batch waits; how many replicas may be missing, and on how many hosts a release
//! may fail; whether each replica runs its own pre-commands; and whether what runs is upgraded where it can be, has to be, or
//! never is.
//!
//! Times are short beside the minute in which things go wrong, so that most rollouts come to their end in it.

use std::num::NonZeroU16;

use control_plane::fleet::Node;
use control_plane::spec::{Amount, AppSpec, CanarySpec, HotUpgradePolicy, Millis, PreCommandsRun, Promote};
use proto::state::Strategy;

use crate::dice::Dice;

/// The label that hosts may be ordered by.
const LABEL: &str = "zone";

/// All of it is drawn anew; `hosts`: as many as there are.
pub(crate) fn draw(spec: &mut AppSpec, dice: &mut Dice, hosts: usize) {
    // Small fleets show most of what there is; large ones what is left.
    let large = dice.one_in(8);
    if let Some(replicas) = number(1 + dice.below(if large { 4 } else { 2 })) {
        spec.replicas = replicas;
    }
    spec.spread = number(1 + dice.below(2 * hosts as u64)).filter(|_| dice.one_in(4));
    spec.rollback_timeout = Millis(20_000);
    let deploy = &mut spec.deploy;
    deploy.watch = Millis(15_000);
    deploy.strategy = if dice.one_in(2) { Strategy::StartFirst } else { Strategy::StopFirst };
    deploy.batch = if dice.one_in(2) { amount(dice, 1) } else { Amount::Count(1) };
    deploy.max_unavailable = if dice.one_in(2) { amount(dice, 0) } else { Amount::Count(0) };
    deploy.canary = dice.one_in(3).then(|| canary(dice));
    deploy.order_by = dice.one_in(3).then(|| LABEL.to_owned());
    deploy.pause_between = Millis(if dice.one_in(3) { 4_000 } else { 0 });
    deploy.tolerate_failed_nodes = u32::from(dice.one_in(3));
    deploy.pre_commands_run =
        if dice.one_in(4) { PreCommandsRun::EveryReplica } else { PreCommandsRun::Once };
    deploy.hot_upgrade = match dice.below(4) {
        0 => HotUpgradePolicy::Never,
        1 => HotUpgradePolicy::Require,
        _ => HotUpgradePolicy::Auto,
    };
}

fn canary(dice: &mut Dice) -> CanarySpec {
    let promote = if dice.one_in(3) { Promote::Manual } else { Promote::Auto };
    let soak = dice.pick(&[0, 6_000, 6_000, 25_000]).copied().unwrap_or_default();
    CanarySpec { nodes: amount(dice, 1), promote, soak: Millis(soak) }
}

fn amount(dice: &mut Dice, least: u32) -> Amount {
    match dice.below(3) {
        0 => Amount::Percent(dice.pick(&[25, 50, 75, 100]).copied().unwrap_or(100)),
        _ => Amount::Count(least + dice.pick(&[0, 1, 2]).copied().unwrap_or_default()),
    }
}

fn number(number: u64) -> Option<NonZeroU16> {
    NonZeroU16::new(u16::try_from(number).unwrap_or(1))
}

/// Some hosts have the label, some have not.
pub(crate) fn label(node: &mut Node, dice: &mut Dice) {
    if !dice.one_in(4) {
        node.labels.insert(LABEL.to_owned(), if dice.one_in(2) { "a" } else { "b" }.to_owned());
    }
}
