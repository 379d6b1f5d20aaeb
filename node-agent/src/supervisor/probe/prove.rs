//! The readiness of a process asked for once more, from nothing: after a hot upgrade what was answered before counts no more.

use std::time::Duration;

use proto::replicas::check_sentence;
use tokio::time::{sleep, timeout};

use super::{Asker, Failure, Mood, Probe};
use crate::clock;

/// Until all of them have passed as often in a row as their settings ask.
///
/// # Errors
/// Which did not within that time, and what was answered last; a sentence.
pub(in crate::supervisor) async fn prove(
    probes: &[Probe],
    asker: &Asker,
    within: Duration,
) -> Result<(), String> {
    let mut last: Option<(String, Failure)> = None;
    let asking = async {
        for probe in probes {
            let (mut order, mut passes) = (None, 0);
            while passes < probe.after.max(1) {
                let failure = asker.ask(probe, &mut order).await.err();
                passes = if failure.is_none() { passes + 1 } else { 0 };
                if passes < probe.after.max(1) {
                    let mood = if failure.is_none() { Mood::Doubt } else { Mood::Close };
                    sleep(probe.pause(mood, failure.as_ref(), clock::now())).await;
                }
                last = failure.map(|it| (probe.asked(), it)).or(last.take());
            }
        }
    };
    if timeout(within, asking).await.is_ok() {
        return Ok(());
    }
    let said = last.map(|(asked, it)| check_sentence(&asked, &it.outcome, &it.body));
    let said = said.unwrap_or_else(|| "nothing was answered".to_owned());
    Err(format!("its check did not pass within {} s after the install: {said}", within.as_secs()))
}
