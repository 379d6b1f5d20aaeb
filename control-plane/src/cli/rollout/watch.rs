//! Follows a rollout while one waits: drawn over and over on a terminal, a line for each change elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use proto::ids::RolloutId;
use proto::rollouts::Rollout;
use tokio::time::Instant;

use super::drawn::{Changes, frame};
use crate::cli::CliError;
use crate::cli::client::Client;
use crate::cli::output::{Out, Paint, note};
use crate::clock::Clock;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Where it is shown.
pub(in crate::cli) enum Screen {
    /// Drawn in place, and left there as it was last.
    Drawn { to_error: bool, paint: Paint, clock: Clock, height: usize },
    /// On standard error, because the answer is still to come.
    Lines(Changes),
}

impl Screen {
    /// Beside an answer: on standard error.
    pub(in crate::cli) fn beside_the_answer(out: &Out) -> Self {
        let terminal = std::io::stderr().is_terminal() && !out.json();
        match terminal {
            true => Self::drawn(true, Paint { on: true }),
            false => Self::Lines(Changes::default()),
        }
    }

    /// As the answer, on a terminal.
    pub(super) fn as_the_answer(paint: Paint) -> Self {
        Self::drawn(false, paint)
    }

    fn drawn(to_error: bool, paint: Paint) -> Self {
        Self::Drawn { to_error, paint, clock: Clock::start(), height: 0 }
    }

    pub(in crate::cli) fn show(&mut self, rollout: &Rollout) -> Result<(), CliError> {
        match self {
            Self::Lines(changes) => {
                changes.lines(rollout).iter().for_each(|line| note(line));
                Ok(())
            }
            Self::Drawn { to_error, paint, clock, height } => {
                let frame = frame(rollout, *paint, clock.now().into());
                let text = over(*height, &frame);
                *height = frame.lines().count();
                let written = match to_error {
                    true => std::io::stderr().lock().write_all(text.as_bytes()),
                    false => std::io::stdout().lock().write_all(text.as_bytes()),
                };
                written.map_err(CliError::Output)
            }
        }
    }
}

/// What takes the place of a frame of so many lines. Lines are not wrapped meanwhile, whatever the terminal's width: the
/// frame would be higher than it is counted.
fn over(height: usize, frame: &str) -> String {
    let back = if height == 0 { String::new() } else { format!("\x1b[{height}A") };
    format!("\x1b[?7l{back}\x1b[J{frame}\x1b[?7h")
}

/// Shows it until `is_over` says so or the time is up, and returns it as it was last.
pub(in crate::cli) async fn follow(
    client: &Client,
    id: RolloutId,
    until: Option<Instant>,
    mut show: impl FnMut(&Rollout) -> Result<(), CliError>,
    is_over: impl Fn(&Rollout) -> bool,
) -> Result<Rollout, CliError> {
    loop {
        let rollout: Rollout = client.get(&format!("/rollouts/{id}")).await?;
        show(&rollout)?;
        if is_over(&rollout) || until.is_some_and(|until| Instant::now() >= until) {
            return Ok(rollout);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_takes_the_place_of_the_one_before() {
        assert_eq!(over(0, "a\n"), "\x1b[?7l\x1b[Ja\n\x1b[?7h");
        assert_eq!(over(3, "a\n"), "\x1b[?7l\x1b[3A\x1b[Ja\n\x1b[?7h");
    }
}
