//! `deployex rpc`: an expression, evaluated by one replica of an application or by all of them, side by side.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use futures_util::{StreamExt as _, stream};
use proto::evaluations::{Evaluation, NewEvaluation, Outcome, Spoken};
use proto::ids::{AppName, NodeName, Slot};
use proto::replicas::Replica;

use super::CliError;
use super::client::Client;
use super::output::{Out, note, place};
use crate::error::chain;

/// Replicas at a time, with --all.
const AT_A_TIME: usize = 8;

/// Evaluate an expression in a replica: Elixir where that is loaded, else Erlang.
///
/// It runs in a process of its own, which is ended when the time is over. What it prints is shown before its value. Who asked
/// for what, and what came of it, are events.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  deployex rpc myapp node()")]
pub(super) struct Rpc {
    /// The application's name.
    application: AppName,
    /// What is evaluated; at most 16 KiB.
    #[arg(allow_hyphen_values = true)]
    expression: String,
    /// A replica of this node; without it and --slot the first that is ready.
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    /// The replica in this slot.
    #[arg(long, value_name = "K")]
    slot: Option<Slot>,
    /// Every replica of the application.
    #[arg(long, conflicts_with_all = ["node", "slot"])]
    all: bool,
    /// It is written in Erlang.
    #[arg(long, conflicts_with = "elixir")]
    erlang: bool,
    /// It is written in Elixir.
    #[arg(long)]
    elixir: bool,
    /// How long it may take; then it is ended, and the exit status is 5.
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=300))]
    timeout: u64,
}

impl Rpc {
    pub(super) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        if self.all {
            return self.everywhere(client, out).await;
        }
        let (node, slot) = match (&self.node, self.slot) {
            (Some(node), Some(slot)) => (node.clone(), slot),
            _ => {
                let (replica, of) = chosen(&self.replicas(client).await?, &self)?;
                if of > 1 {
                    note(&format!("Evaluated by {}, one of {of}.", place(&replica.node, replica.slot)));
                }
                (replica.node, replica.slot)
            }
        };
        let evaluation = self.evaluate(client, node, slot).await?;
        out.show(&evaluation, said)?;
        self.verdict(&evaluation)
    }

    async fn everywhere(&self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let replicas = self.replicas(client).await?;
        let running: Vec<_> = replicas.into_iter().filter(is_there).collect();
        if running.is_empty() {
            return Err(CliError::Refused(format!("nothing of {} runs", self.application)));
        }
        let asked = running.into_iter().map(async |it| Asked {
            answer: self.evaluate(client, it.node.clone(), it.slot).await,
            node: it.node,
            slot: it.slot,
        });
        let answers: Vec<_> = stream::iter(asked).buffered(AT_A_TIME).collect().await;
        let (answers, verdict) = self.side_by_side(answers)?;
        out.show(&answers, |answers| answers.iter().map(in_a_row).collect())?;
        verdict
    }

    /// All of them, and what the exit status is made of. What one replica cannot do, or is not told of, is its answer beside
    /// those of the others; where none of them answered there is nothing but the reason.
    fn side_by_side(&self, answers: Vec<Asked>) -> Result<(Vec<Evaluation>, Result<(), CliError>), CliError> {
        let is_told = |it: &Asked| matches!(it.answer, Ok(_) | Err(CliError::Refused(_)));
        if !answers.iter().any(is_told) {
            let because = answers.into_iter().find_map(|it| it.answer.err());
            return because.map_or_else(|| Ok((Vec::new(), Ok(()))), Err);
        }
        let (mut told, mut failures) = (Vec::new(), Vec::new());
        for Asked { node, slot, answer } in answers {
            let (evaluation, verdict) = match answer {
                Ok(evaluation) => {
                    let verdict = self.verdict(&evaluation);
                    (evaluation, verdict)
                }
                Err(error) => (self.without(node, slot, &error), Err(error)),
            };
            told.push(evaluation);
            failures.extend(verdict.err());
        }
        if failures.is_empty() {
            return Ok((told, Ok(())));
        }
        let text = format!("it failed in {} of {} replicas", failures.len(), told.len());
        let is_late = failures.iter().all(|it| matches!(it, CliError::TimedOut(_)));
        let verdict = if is_late { CliError::TimedOut(text) } else { CliError::Refused(text) };
        Ok((told, Err(verdict)))
    }

    async fn replicas(&self, client: &Client) -> Result<Vec<Replica>, CliError> {
        client.get_all(&format!("/replicas?app={}", self.application)).await
    }

    async fn evaluate(&self, client: &Client, node: NodeName, slot: Slot) -> Result<Evaluation, CliError> {
        let language = match (self.erlang, self.elixir) {
            (true, _) => Some(Spoken::Erlang),
            (_, true) => Some(Spoken::Elixir),
            _ => None,
        };
        let expression = self.expression.clone();
        let wish = NewEvaluation { expression, language, timeout_ms: Some(self.timeout * 1_000) };
        let path = format!("/replicas/{node}/{}/{slot}/rpc", self.application);
        client.post_within(&path, &wish, Duration::from_secs(self.timeout)).await
    }

    fn without(&self, node: NodeName, slot: Slot, error: &CliError) -> Evaluation {
        let because = chain(error);
        let outcome = match error {
            CliError::Refused(_) | CliError::NotAllowed(_) | CliError::WrongUse(_) => {
                Outcome::Refused { because }
            }
            _ => Outcome::Unknown { because },
        };
        Evaluation {
            application: self.application.clone(),
            node,
            slot,
            outcome,
            language: None,
            printed: String::new(),
            printed_dropped: 0,
            took_ms: 0,
        }
    }

    /// What its exit status is made of.
    fn verdict(&self, evaluation: &Evaluation) -> Result<(), CliError> {
        let at = place(&evaluation.node, evaluation.slot);
        match failure(&evaluation.outcome) {
            None => Ok(()),
            Some(why) => match evaluation.outcome {
                Outcome::TimedOut => {
                    Err(CliError::TimedOut(format!("{at}: {why} (--timeout {})", self.timeout)))
                }
                Outcome::NoAnswer => Err(CliError::TimedOut(format!("{at}: {why}"))),
                _ => Err(CliError::Refused(format!("{at}: {why}"))),
            },
        }
    }
}

/// Of one replica.
struct Asked {
    node: NodeName,
    slot: Slot,
    answer: Result<Evaluation, CliError>,
}

/// It is to run something, or does.
fn is_there(replica: &Replica) -> bool {
    replica.pid.is_some() || replica.assigned.is_some()
}

/// The first that is ready; and of how many.
fn chosen(replicas: &[Replica], asked: &Rpc) -> Result<(Replica, usize), CliError> {
    let is_named = |it: &&Replica| {
        asked.node.as_ref().is_none_or(|node| *node == it.node)
            && asked.slot.is_none_or(|slot| slot == it.slot)
    };
    let fitting: Vec<&Replica> = replicas.iter().filter(is_named).filter(|it| is_there(it)).collect();
    let ready = fitting.iter().find(|it| it.state.is_ready());
    let running = || fitting.iter().find(|it| it.pid.is_some());
    let found = ready.or_else(running).or(fitting.first()).ok_or_else(|| {
        let slot = asked.slot.map(|slot| format!("slot {slot} of ")).unwrap_or_default();
        let node = asked.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
        CliError::Refused(format!("nothing runs of {slot}{}{node}", asked.application))
    })?;
    Ok(((*found).clone(), fitting.len()))
}

/// Why there is no value; as safe to show as `whole_lines`.
fn failure(outcome: &Outcome) -> Option<String> {
    let why = match outcome {
        Outcome::Value { .. } => return None,
        Outcome::Raised { class, message, stacktrace, cut } => {
            let more = if *cut { " …" } else { "" };
            // Elixir's own message names the class.
            let said =
                if message.starts_with("** (") { message.clone() } else { format!("{class}: {message}") };
            format!("{said}{more}\n{stacktrace}")
        }
        Outcome::TimedOut => "it took too long and was ended".to_owned(),
        Outcome::NoAnswer => {
            "its Erlang node does not answer; what it was asked ends as soon as it does".to_owned()
        }
        Outcome::Unknown { because } => format!("what came of it is not known: {because}"),
        Outcome::Refused { because } => because.clone(),
    };
    Some(whole_lines(&why).trim_end().to_owned())
}

/// What it printed, and its value.
fn said(evaluation: &Evaluation) -> String {
    let mut text = whole_lines(&evaluation.printed);
    if evaluation.printed_dropped > 0 {
        let _ = writeln!(text, "… {} bytes more were printed", evaluation.printed_dropped);
    }
    if let Outcome::Value { value, cut } = &evaluation.outcome {
        text.push_str(&whole_lines(value));
        if *cut {
            text.push_str("… that is not all of it\n");
        }
    }
    text
}

/// The same below a line that says whose it is.
fn in_a_row(evaluation: &Evaluation) -> String {
    let failed = failure(&evaluation.outcome).map(|it| whole_lines(&it)).unwrap_or_default();
    let lines = said(evaluation) + &failed;
    let mut text = format!("{}:\n", place(&evaluation.node, evaluation.slot));
    for line in lines.lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// A program wrote it: nothing of it moves the cursor of the one who reads, but to the next line.
fn whole_lines(text: &str) -> String {
    let shown = |it: char| if it.is_control() && !matches!(it, '\n' | '\t') { '\u{fffd}' } else { it };
    let mut text: String = text.chars().map(shown).collect();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use proto::state::SlotState;

    use super::super::app::tests::replica;
    use super::*;

    #[derive(clap::Parser)]
    struct Words {
        #[command(flatten)]
        rpc: Rpc,
    }

    fn rpc(words: &[&str]) -> Rpc {
        let words = ["rpc", "myapp", "1 + 1"].into_iter().chain(words.iter().copied());
        Words::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).rpc
    }

    fn evaluation(outcome: Outcome) -> Evaluation {
        Evaluation {
            application: "myapp".parse().unwrap(),
            node: "web-1".parse().unwrap(),
            slot: "2".parse().unwrap(),
            outcome,
            language: None,
            printed: "so far".to_owned(),
            printed_dropped: 3,
            took_ms: 1,
        }
    }

    #[test]
    fn the_first_that_is_ready_is_asked_and_what_is_named_counts() {
        let on = |node: &str, slot: &str, state, pid| {
            let (node, slot) = (node.parse().unwrap(), slot.parse().unwrap());
            Replica { node, slot, state, pid, ..replica() }
        };
        let all = [
            on("web-1", "1", SlotState::BackingOff, None),
            on("web-1", "2", SlotState::Starting, Some(7)),
            on("web-2", "1", SlotState::Ready, Some(8)),
            on("web-2", "2", SlotState::Stable, Some(9)),
        ];
        let asked = |words: &[&str]| {
            let (found, of) = chosen(&all, &rpc(words))?;
            Ok::<_, CliError>((place(&found.node, found.slot), of))
        };
        assert_eq!(asked(&[]).unwrap(), ("web-2/1".to_owned(), 4));
        assert_eq!(asked(&["--slot", "2"]).unwrap(), ("web-2/2".to_owned(), 2));
        // None is ready: one that runs can still be asked.
        assert_eq!(asked(&["--node", "web-1"]).unwrap(), ("web-1/2".to_owned(), 2));
        let error = asked(&["--node", "web-3", "--slot", "1"]).unwrap_err();
        assert_eq!(error.to_string(), "nothing runs of slot 1 of myapp on web-3");
    }

    #[test]
    fn an_outcome_decides_the_exit_status() {
        let raised = |message: &str| Outcome::Raised {
            class: "error".to_owned(),
            message: message.to_owned(),
            stacktrace: "m:f/1 (a.erl:3)\n".to_owned(),
            cut: false,
        };
        let status = |outcome| {
            rpc(&[])
                .verdict(&evaluation(outcome))
                .map_or_else(|error| (error.status(), error.to_string()), |()| (0, String::new()))
        };
        assert_eq!(status(Outcome::Value { value: "2".to_owned(), cut: false }).0, 0);
        let told = (1, "web-1/2: error: badarith\nm:f/1 (a.erl:3)".to_owned());
        assert_eq!(status(raised("badarith")), told);
        assert!(status(raised("\u{1b}[2Jboom")).1.starts_with("web-1/2: error: \u{fffd}[2Jboom\n"));
        assert!(status(raised("** (RuntimeError) boom")).1.starts_with("web-1/2: ** (RuntimeError) boom\n"));
        assert_eq!(status(Outcome::TimedOut).0, 5);
        assert_eq!(status(Outcome::NoAnswer).0, 5);
        for outcome in
            [Outcome::Unknown { because: "x".to_owned() }, Outcome::Refused { because: "x".to_owned() }]
        {
            assert_eq!(status(outcome).0, 1);
        }
    }

    fn answers(all: Vec<Result<Outcome, CliError>>) -> Vec<Asked> {
        let of = |answer: Result<Outcome, CliError>| Asked {
            node: "web-1".parse().unwrap(),
            slot: "2".parse().unwrap(),
            answer: answer.map(evaluation),
        };
        all.into_iter().map(of).collect()
    }

    fn unreadable() -> CliError {
        CliError::Unreadable { what: "web".to_owned(), source: "it broke off".into() }
    }

    #[test]
    fn what_is_not_known_of_one_replica_takes_nothing_from_the_others() {
        let value = Outcome::Value { value: "2".to_owned(), cut: false };
        let all = vec![Ok(value), Err(CliError::Refused("no cookie".to_owned())), Err(unreadable())];
        let (told, verdict) = rpc(&["--all"]).side_by_side(answers(all)).unwrap();
        let words: Vec<_> = told.iter().map(|it| it.outcome.word()).collect();
        assert_eq!(words, ["value", "refused", "unknown"]);
        assert!(in_a_row(&told[2]).contains("it broke off"), "{}", in_a_row(&told[2]));
        let verdict = verdict.unwrap_err();
        assert_eq!((verdict.status(), verdict.to_string().as_str()), (1, "it failed in 2 of 3 replicas"));
        let none = rpc(&["--all"]).side_by_side(answers(vec![Err(unreadable()), Err(unreadable())]));
        assert!(matches!(none, Err(CliError::Unreadable { .. })));
    }

    #[test]
    fn replicas_that_all_took_too_long_have_the_exit_status_of_one() {
        let late = || Err(CliError::TimedOut("late".to_owned()));
        let status = |all| match rpc(&["--all"]).side_by_side(answers(all)) {
            Ok((_, verdict)) => verdict.map_or_else(|error| error.status(), |()| 0),
            Err(error) => error.status(),
        };
        let value = || Ok(Outcome::Value { value: "2".to_owned(), cut: false });
        assert_eq!(status(vec![value(), value()]), 0);
        assert_eq!(status(vec![value(), Ok(Outcome::TimedOut), Ok(Outcome::NoAnswer), late()]), 5);
        assert_eq!(status(vec![late(), late()]), 5);
        assert_eq!(status(vec![Ok(Outcome::TimedOut), Err(unreadable())]), 1);
    }

    #[test]
    fn what_was_printed_comes_first_and_moves_no_cursor() {
        let mut shown = evaluation(Outcome::Value { value: "\u{1b}[2J2".to_owned(), cut: true });
        assert_eq!(
            said(&shown),
            "so far\n… 3 bytes more were printed\n\u{fffd}[2J2\n… that is not all of it\n"
        );
        shown.printed_dropped = 0;
        shown.outcome = Outcome::TimedOut;
        assert_eq!(in_a_row(&shown), "web-1/2:\n  so far\n  it took too long and was ended\n");
    }

    #[test]
    fn all_replicas_are_not_one_of_them() {
        let words = ["rpc", "myapp", "-1", "--all", "--slot", "1"];
        assert!(Words::try_parse_from(words).is_err());
        assert!(Words::try_parse_from(&words[..4]).is_ok());
    }
}
