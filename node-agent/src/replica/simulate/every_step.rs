//! The agent dies at every place of a history in its turn: before, between and after each write of the ledger and each action.

use super::*;

/// So many histories are gone through place by place: some thousand deaths.
const GONE_THROUGH: u64 = 8;

/// As it goes with `seed` where the agent dies at this place of it, and wherever else it does without that.
fn with_a_death(seed: u64, place: u64) -> World {
    World { dies_at: Some(place), ..World::new(seed, false) }
}

#[test]
fn an_agent_may_die_at_every_place_of_a_history() {
    let mut deaths = 0;
    for seed in 1..=GONE_THROUGH {
        let mut undisturbed = with_a_death(seed, 0);
        let outcome = undisturbed.play();
        assert!(outcome.is_ok(), "seed {seed}: {:?}", outcome.map_err(|it| it.detail));
        for place in 1..=undisturbed.places {
            if let Err(Violation { invariant, detail }) = with_a_death(seed, place).play() {
                panic!("seed {seed}, death at place {place}: {invariant:?}: {detail}");
            }
            deaths += 1;
        }
    }
    assert!(deaths > 2_000, "{deaths}");
}
