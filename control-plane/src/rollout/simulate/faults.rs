//! The simulation is only worth what it catches: each planted fault breaks the law that it should.

use super::{GROWING, Law, history, laws};
use crate::rollout::fault::{Fault, plant};

/// The law that a history names: this one, where any does.
fn caught(fault: Fault, law: Law) -> Option<Law> {
    plant(Some(fault));
    let seeds = match fault {
        Fault::IgnoreCooldowns | Fault::HurryForLimits => GROWING..GROWING + 2_000,
        _ => 0..2_000,
    };
    let mut named = seeds.filter_map(|seed| history(seed, false).err()).map(|broken| broken.law);
    let first = named.next();
    let found = first.filter(|it| *it == law).or_else(|| named.find(|it| *it == law)).or(first);
    plant(None);
    found
}

macro_rules! caught {
    ($($name:ident: $fault:ident => $law:ident),+ $(,)?) => {
        $(#[test] fn $name() { assert_eq!(caught(Fault::$fault, laws::$law), Some(laws::$law)); })+
    };
}

caught! {
    believing_old_reports_is_caught: BelieveOldReports => ONCE,
    replacing_a_ready_slot_without_others_is_caught: ReplaceWithoutOthers => ENOUGH_READY,
    not_waiting_for_stable_is_caught: DoNotWaitForStable => STABLE_IN_FORCE,
    withdrawing_the_spare_early_is_caught: WithdrawSpareEarly => ENOUGH_READY,
    keeping_the_spare_is_caught: KeepSpare => ENDS,
    deploying_a_ghosted_release_is_caught: DeployGhosted => NO_GHOST,
    counting_the_time_of_an_outage_is_caught: CountLostTime => JUST_GHOSTS,
    never_giving_up_is_caught: NeverGiveUp => ENDS,
    a_failed_release_that_stays_in_force_is_caught: StayInForce => NO_GHOST,
    a_revert_that_touches_all_is_caught: RevertTouchesAll => UNTOUCHED,
    replacing_a_suspect_leader_is_caught: ReplaceSuspectLeader => PRE_COMMANDS_ONCE,
    not_waiting_for_pre_commands_is_caught: DoNotWaitForPreCommands => PRE_COMMANDS_FIRST,
    saying_nothing_is_caught: SayNothing => SAYS_WHY,
    writing_every_time_is_caught: WriteEveryTime => ONCE,
    waiting_for_lost_nodes_is_caught: WaitForLostNodes => ENDS,
    giving_new_nodes_the_newest_is_caught: NewNodesGetTheNewest => TWO_RELEASES,
    taking_one_crash_for_a_loop_is_caught: OneCrashIsALoop => JUST_GHOSTS,
    restarting_all_at_once_is_caught: RestartAllAtOnce => RESTARTS_ROLL,
    restarting_for_limits_without_a_pause_is_caught: IgnoreCooldowns => COOLDOWNS,
    restarting_for_limits_whoever_else_is_away_is_caught: HurryForLimits => ENOUGH_READY,
    taking_a_word_for_a_start_is_caught: TakeAWordForAStart => RESTARTS_ALL,
    going_on_while_paused_is_caught: IgnorePause => PAUSED,
    taking_down_all_there_is_is_caught: TakeAllDown => ALL_THERE_IS,
    forgetting_what_is_missing_elsewhere_is_caught: ForgetTheOthers => BEYOND,
    a_batch_that_is_too_large_is_caught: BatchTooLarge => BATCHES,
    not_waiting_for_a_canary_is_caught: SkipTheSoak => CANARY,
    trusting_a_canary_that_is_lost_is_caught: TrustALostCanary => CANARY,
    losing_one_node_after_the_other_is_caught: LoseThemAll => LOST_ALL,
    beginning_again_what_was_given_up_is_caught: TryAbortedAgain => GIVEN_UP,
    emptying_a_node_at_once_is_caught: DrainAtOnce => DRAINS,
    giving_to_a_cordoned_node_is_caught: FillCordoned => KEPT_AWAY,
    breaking_off_a_revert_is_caught: BreakOffReverts => BROUGHT_BACK,
    hurrying_a_revert_is_caught: HurryReverts => BROUGHT_BACK,
    giving_up_what_serves_is_caught: CatchUpAtOnce => STILL_SERVES,
    leaving_a_node_without_successors_is_caught: MoveWithoutSuccessor => SUCCESSORS,
    mixing_the_labels_that_order_nodes_is_caught: MixLabels => BATCHES,
    not_hearing_whoever_promotes_is_caught: IgnorePromotion => ENDS,
    forgetting_what_was_superseded_in_its_watch_is_caught: ForgetPredecessors => WATCHED_ON,
    forgetting_the_rest_of_a_watch_is_caught: ForgetTheRestOfAWatch => WATCHED_ON,
    watching_what_runs_nowhere_is_caught: CountUnseen => WATCHED_WHOLE,
    running_pre_commands_on_the_way_back_is_caught: RunOnTheWayBack => REVERTS_RUN_NONE,
    missing_what_was_told_nothing_is_caught: MissTheVacant => ENDS,
    counting_a_gap_in_a_watch_is_caught: CountTheGap => WATCHED_WHOLE,
}
