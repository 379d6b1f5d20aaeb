//! One list of probes, asked of one process for as long as it runs.

use std::future::pending;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::super::acts;
use super::super::slot::Answer;
use super::streak::Streak;
use super::telling::{News, Telling};
use super::{Ask, Asker, Failure, Mood, Probe, STARTING_PATIENCE};
use crate::clock;
use crate::replica::report::FailedCheck;
use crate::replica::{Charge, Condemned, Event, Ticket};

/// Answers of a list that wait to be looked at.
const SEEN: usize = 4;

pub(in crate::supervisor) struct Watch {
    pub(in crate::supervisor) ticket: Ticket,
    /// `live`: its failure condemns. Else `ready`: whether it passes is told.
    pub(in crate::supervisor) liveness: bool,
    /// All must pass.
    pub(in crate::supervisor) probes: Vec<Probe>,
    /// What is believed before anything was answered: an agent that begins anew believes its predecessor.
    pub(in crate::supervisor) passes: bool,
    pub(in crate::supervisor) asker: Asker,
}

/// What came of one question.
struct Seen {
    index: usize,
    passes: bool,
    failures: u32,
    failure: Option<Failure>,
}

/// Asks until cancelled, or until the process is condemned. Says every change of the answer.
pub(in crate::supervisor) async fn watch(
    watch: Watch,
    answers: mpsc::Sender<Answer>,
    cancel: CancellationToken,
) {
    let (tell, seen) = mpsc::channel(SEEN);
    let asking =
        watch.probes.iter().enumerate().map(|(index, probe)| ask_again(&watch, index, probe, tell.clone()));
    tokio::select! {
        // Nobody wants the answer any more; a command that is being run is ended with this.
        biased;
        () = cancel.cancelled() => {}
        () = judge(&watch, seen, &answers) => {}
        _ = join_all(asking) => {}
    }
}

async fn ask_again(watch: &Watch, index: usize, probe: &Probe, tell: mpsc::Sender<Seen>) {
    let Watch { asker, liveness, passes, .. } = watch;
    let mut streak = Streak::new(probe.after, *passes);
    let mut order = None;
    let mut asked = 0_u32;
    // Until the first success, and only as long as that may help.
    let mut closely = !streak.passes();
    loop {
        let failure = asker.ask(probe, &mut order).await.err();
        if failure.as_ref().is_some_and(|it| it.unasked || (*liveness && it.blameless)) {
            // The last answer stands.
            sleep(probe.pause(Mood::Doubt, failure.as_ref(), clock::now())).await;
            continue;
        }
        streak.count(failure.is_none());
        asked = asked.saturating_add(1);
        closely &= !streak.passes() && asked < STARTING_PATIENCE;
        let mood = match failure {
            _ if closely => Mood::Close,
            None if streak.passes() => Mood::Calm,
            _ => Mood::Doubt,
        };
        let pause = probe.pause(mood, failure.as_ref(), clock::now());
        let seen = Seen { index, passes: streak.passes(), failures: streak.failures(), failure };
        if tell.send(seen).await.is_err() {
            return;
        }
        if probe.ask == Ask::Process && streak.passes() {
            // Nothing else can be answered while there is a process to ask.
            pending::<()>().await;
        }
        sleep(pause).await;
    }
}

async fn judge(watch: &Watch, mut seen: mpsc::Receiver<Seen>, answers: &mpsc::Sender<Answer>) {
    let Watch { ticket, liveness, ref probes, passes, ref asker } = *watch;
    let mut passing = vec![passes; probes.len()];
    let mut believed = passes;
    let mut telling = Telling::new(!passes, clock::now());
    let mut last: Option<FailedCheck> = None;
    while let Some(Seen { index, passes, failures, failure }) = seen.recv().await {
        passing[index] = passes;
        let all = passing.iter().all(|it| *it);
        if all {
            telling.passed_once();
        }
        let now = clock::now();
        let asked = probes.get(index).map(Probe::asked).unwrap_or_default();
        let news = match telling.hear(index, failure.as_ref(), failures, believed && !all, now) {
            News::None => None,
            News::Passes => last.clone().map(|it| FailedCheck { in_a_row: 0, ..it }),
            News::Failed => failure.map(|Failure { outcome, body, .. }| FailedCheck {
                liveness,
                asked,
                outcome,
                body,
                at: now,
                in_a_row: failures,
                log_tail: String::new(),
            }),
        };
        if let Some(mut check) = news {
            if check.in_a_row > 0 {
                check.log_tail = acts::last_lines(&asker.shared, &asker.context, asker.pid).await;
            }
            last = Some(check.clone());
            if answers.send(Answer::Checked { ticket, check: Box::new(check) }).await.is_err() {
                return;
            }
        }
        if all == believed {
            continue;
        }
        believed = all;
        let answer = match &last {
            Some(check) if liveness => {
                let condemned = Condemned { charge: Charge::Unresponsive, because: because(check) };
                Answer::Event(Event::Condemned { ticket, condemned })
            }
            _ => Answer::Probed { ticket, passed: all },
        };
        if answers.send(answer).await.is_err() || liveness {
            return;
        }
    }
}

fn because(check: &FailedCheck) -> String {
    let said = proto::replicas::check_sentence(&check.asked, &check.outcome, &check.body);
    match check.in_a_row {
        1 => format!("its live check failed: {said}"),
        times => format!("its live check failed {times} times in a row: {said}"),
    }
}
