//! How many files the agent may have open, and with it whoever it starts.
//!
//! Service managers give a program 1024 unless told otherwise, for the sake of programs that cannot count further, and let it
//! raise that by itself. Erlang's VM can, and takes what it finds for what there is: it would serve less than a thousand
//! connections. So both get more here.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What Erlang's VM makes room for by itself; with far more it takes memory for each.
const FILES: u64 = 65_536;

/// The soft limit becomes [`FILES`] where it is lower and the hard one allows it. Returns what it is now; `None`: unlimited.
pub(crate) fn raise_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = raised(limit.current, limit.maximum);
    if raised != limit.current {
        // Without it what runs now runs on; what lacks a descriptor later says so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: raised, maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current
}

fn raised(soft: Option<u64>, hard: Option<u64>) -> Option<u64> {
    soft.map(|soft| soft.max(hard.map_or(FILES, |hard| hard.min(FILES))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_limit_is_raised_as_far_as_it_may_be_and_a_high_one_stays() {
        for (soft, hard, expected) in [
            (Some(1024), Some(524_288), Some(FILES)),
            (Some(1024), None, Some(FILES)),
            (Some(1024), Some(4096), Some(4096)),
            (Some(200_000), Some(524_288), Some(200_000)),
            (None, None, None),
        ] {
            assert_eq!(raised(soft, hard), expected, "{soft:?} {hard:?}");
        }
    }
}
