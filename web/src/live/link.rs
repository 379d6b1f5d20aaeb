//! The live link as a state machine: connecting, live, waiting to try again. Pure: the socket and the clock are elsewhere.
//!
//! ```text
//!   Connecting ──Heard──▶ Live ──silence──┐
//!       ▲  └──Closed──▶ Waiting ◀─Closed──┴──▶ (dropped)
//!       └──────Tick, Nudge──┘
//! ```

use std::time::Duration;

/// Milliseconds of a clock that only goes forward.
pub type Millis = u64;

/// The control plane says something every 15 s, even where nothing changed: twice that and a little.
const SILENCE: Millis = 35_000;
/// A connection that is not there by then never will be.
const CONNECT_WITHIN: Millis = 15_000;
const FIRST_WAIT: Millis = 500;
const LONGEST_WAIT: Millis = 15_000;
/// `Close` of a server that will not have this session any more.
const POLICY: u16 = 1008;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Connecting { attempt: u32, since: Millis },
    Live { heard: Millis },
    Waiting { attempt: u32, until: Millis },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A message came.
    Heard,
    /// The socket is closed, with this code.
    Closed(u16),
    /// Time has passed.
    Tick,
    /// There is a reason to try at once: the network is back, the page is looked at again.
    Nudge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Open a new socket, and forget the old one.
    Connect,
    /// Forget the socket: nothing comes from it any more.
    Drop,
    /// Ask whether the session still is one: a browser does not say why a socket was refused.
    CheckSession,
}

impl Link {
    pub fn start(now: Millis) -> Self {
        Self::Connecting { attempt: 0, since: now }
    }

    pub fn is_live(self) -> bool {
        matches!(self, Self::Live { .. })
    }

    /// Was live and is not: what is shown is old.
    pub fn word(self) -> &'static str {
        match self {
            Self::Live { .. } => "live",
            Self::Connecting { attempt: 0, .. } => "connecting",
            Self::Connecting { .. } | Self::Waiting { .. } => "reconnecting",
        }
    }

    /// What comes next. `chance` spreads the attempts of many consoles: anything from 0 to 1.
    #[must_use]
    pub fn step(self, happening: Happening, now: Millis, chance: f64) -> (Self, Option<Act>) {
        match (self, happening) {
            (Self::Connecting { .. } | Self::Live { .. }, Happening::Heard) => {
                (Self::Live { heard: now }, None)
            }
            (Self::Connecting { attempt, .. }, Happening::Closed(_)) => {
                (waiting(attempt + 1, now, chance), Some(Act::CheckSession))
            }
            (Self::Live { .. }, Happening::Closed(code)) => {
                let act = (code == POLICY).then_some(Act::CheckSession);
                (waiting(1, now, chance), act)
            }
            (Self::Connecting { attempt, since }, Happening::Tick | Happening::Nudge)
                if now.saturating_sub(since) > CONNECT_WITHIN =>
            {
                (waiting(attempt + 1, now, chance), Some(Act::Drop))
            }
            (Self::Live { heard }, Happening::Tick | Happening::Nudge)
                if now.saturating_sub(heard) > SILENCE =>
            {
                (Self::Connecting { attempt: 1, since: now }, Some(Act::Connect))
            }
            (Self::Waiting { attempt, until }, Happening::Tick) if now >= until => {
                (Self::Connecting { attempt, since: now }, Some(Act::Connect))
            }
            (Self::Waiting { attempt, .. }, Happening::Nudge) => {
                (Self::Connecting { attempt, since: now }, Some(Act::Connect))
            }
            // Of a socket that was forgotten, or too early to do anything.
            (state, _) => (state, None),
        }
    }
}

fn waiting(attempt: u32, now: Millis, chance: f64) -> Link {
    let doubled = FIRST_WAIT.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(LONGEST_WAIT);
    let wait = Duration::from_millis(doubled);
    let spread = wait.mul_f64(chance.clamp(0.0, 1.0) * 0.5);
    Link::Waiting {
        attempt,
        until: now + u64::try_from(wait.saturating_sub(spread).as_millis()).unwrap_or(LONGEST_WAIT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_live_once_something_was_heard() {
        let (link, act) = Link::start(0).step(Happening::Heard, 10, 0.0);
        assert_eq!((link, act), (Link::Live { heard: 10 }, None));
        assert_eq!((Link::start(0).word(), link.word()), ("connecting", "live"));
    }

    #[test]
    fn waits_double_up_to_a_limit_and_are_spread() {
        let mut link = Link::start(0);
        let mut waits = Vec::new();
        for _ in 0..7 {
            let (next, act) = link.step(Happening::Closed(1006), 0, 0.0);
            assert_eq!(act, Some(Act::CheckSession));
            let Link::Waiting { until, .. } = next else { panic!("{next:?}") };
            waits.push(until);
            assert_eq!(next.step(Happening::Tick, until - 1, 0.0), (next, None));
            let (connecting, act) = next.step(Happening::Tick, until, 0.0);
            assert_eq!(act, Some(Act::Connect));
            let Link::Connecting { attempt, .. } = connecting else { panic!("{connecting:?}") };
            link = Link::Connecting { attempt, since: 0 };
        }
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000]);
        let (spread, _) = Link::start(0).step(Happening::Closed(1006), 0, 1.0);
        assert_eq!(spread, Link::Waiting { attempt: 1, until: 250 });
    }

    #[test]
    fn silence_is_a_dead_link() {
        let link = Link::Live { heard: 0 };
        assert_eq!(link.step(Happening::Tick, SILENCE, 0.0), (link, None));
        let (next, act) = link.step(Happening::Tick, SILENCE + 1, 0.0);
        assert_eq!((next.word(), act), ("reconnecting", Some(Act::Connect)));
        let slow = Link::start(0).step(Happening::Tick, CONNECT_WITHIN + 1, 0.0);
        assert_eq!((slow.0.word(), slow.1), ("reconnecting", Some(Act::Drop)));
    }

    #[test]
    fn a_session_that_ended_is_asked_about_and_a_restart_is_not() {
        assert_eq!(
            Link::Live { heard: 0 }.step(Happening::Closed(POLICY), 1, 0.0).1,
            Some(Act::CheckSession)
        );
        assert_eq!(Link::Live { heard: 0 }.step(Happening::Closed(1012), 1, 0.0).1, None);
    }

    #[test]
    fn a_nudge_ends_the_wait_and_disturbs_nothing_else() {
        let waiting = Link::Waiting { attempt: 6, until: 15_000 };
        assert_eq!(
            waiting.step(Happening::Nudge, 1, 0.0),
            (Link::Connecting { attempt: 6, since: 1 }, Some(Act::Connect))
        );
        for link in [Link::start(0), Link::Live { heard: 0 }] {
            assert_eq!(link.step(Happening::Nudge, 1, 0.0), (link, None));
        }
    }

    #[test]
    fn late_news_of_a_forgotten_socket_changes_nothing() {
        let waiting = Link::Waiting { attempt: 1, until: 500 };
        assert_eq!(waiting.step(Happening::Heard, 1, 0.0), (waiting, None));
        assert_eq!(waiting.step(Happening::Closed(1006), 1, 0.0), (waiting, None));
    }
}
