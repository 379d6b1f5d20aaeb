//! What the demo waits for, said while it waits.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Started;
use super::layout::Layout;
use crate::command::run_quietly;

const LOOK: Duration = Duration::from_millis(500);
/// A machine with two cores boots all replicas of the demo in well under a minute.
const PATIENCE: Duration = Duration::from_mins(5);

/// Until the control plane answers on its local socket.
pub(super) async fn answers(layout: &Layout, control_plane: &mut Started) -> Result<()> {
    println!("starting the control plane");
    for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
        alive(control_plane)?;
        if run_quietly(&mut layout.ask(&["status"])).is_ok() {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    bail!("the control plane does not answer; its log is {}", control_plane.log.display())
}

pub(super) fn join_token(layout: &Layout) -> Result<String> {
    let text =
        run_quietly(&mut layout.ask(&["node", "token"])).context("the control plane gave no join token")?;
    let answer: Value = serde_json::from_str(&text)?;
    Ok(answer["token"].as_str().context("the answer holds no join token")?.to_owned())
}

/// Until every replica of every application runs; says what is not there yet whenever that changes.
pub(super) async fn until_all_run(layout: &Layout, programs: &mut [&mut Started]) -> Result<()> {
    let mut said = String::new();
    for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
        for program in programs.iter_mut() {
            alive(program)?;
        }
        let text = run_quietly(&mut layout.ask(&["app", "list"]))?;
        let applications: Value = serde_json::from_str(&text)?;
        let (all_run, sentence) = summary(&applications);
        if sentence != said {
            println!("{sentence}");
            said = sentence;
        }
        if all_run {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    let logs: Vec<String> = programs.iter().map(|program| program.log.display().to_string()).collect();
    bail!("not every replica runs after {} minutes; see {}", PATIENCE.as_secs() / 60, logs.join(" and "))
}

/// Does every application have all its replicas, stable once? And what stands where.
fn summary(applications: &Value) -> (bool, String) {
    let empty = Vec::new();
    let applications = applications.as_array().unwrap_or(&empty);
    let mut all_run = !applications.is_empty();
    let lines: Vec<String> = applications
        .iter()
        .map(|application| {
            let (ready, wanted) = (&application["replicas_ready"], &application["replicas_wanted"]);
            // In force is what was stable everywhere; a rollout is watched long after that.
            all_run &= ready == wanted && wanted != 0 && !application["in_force"].is_null();
            format!("{} {ready}/{wanted}", application["name"].as_str().unwrap_or("?"))
        })
        .collect();
    (all_run, format!("replicas that run: {}", lines.join(", ")))
}

/// Returns only when one of them ended by itself.
pub(super) async fn while_they_live(programs: &mut [&mut Started]) -> Result<()> {
    loop {
        for program in programs.iter_mut() {
            alive(program)?;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn alive(program: &mut Started) -> Result<()> {
    if let Some(status) = program.child.try_wait()? {
        let log = std::fs::read_to_string(&program.log).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(15).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        bail!("it ended with {status}; the end of {}:\n{}", program.log.display(), last.join("\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_run_when_every_slot_is_ready_and_was_stable() {
        let application = |ready: u32, in_force: Value| json!([{ "name": "a", "replicas_ready": ready, "replicas_wanted": 2, "in_force": in_force, "rollout": "watched" }]);
        assert!(summary(&application(2, json!({ "version": "0.1.0" }))).0);
        assert!(!summary(&application(1, json!({ "version": "0.1.0" }))).0);
        assert!(!summary(&application(2, Value::Null)).0);
        assert!(!summary(&json!([])).0);
        assert_eq!(summary(&application(1, Value::Null)).1, "replicas that run: a 1/2");
    }
}
