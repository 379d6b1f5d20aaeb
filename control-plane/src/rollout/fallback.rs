//! When a slot goes back by itself, if its agent loses us before the new release is known to be good.

use proto::state::{RolloutPhase, Strategy};

/// Slots that were told the release of a rollout may have stopped what ran before for one that is not stable yet. Once the
/// release is in force, or taken back, nobody goes back by itself. Where nothing is stopped first, nobody needs to.
pub fn has_way_back(phase: RolloutPhase, strategy: Strategy) -> bool {
    matches!(phase, RolloutPhase::Pending | RolloutPhase::Running) && strategy == Strategy::StopFirst
}
