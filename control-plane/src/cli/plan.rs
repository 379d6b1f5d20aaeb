//! `deployex plan` and `deployex apply`: what a configuration would change, and putting it in force.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use clap::Args;
use proto::configuration::{
    Applied, ApplyConfiguration, Class, Configuration, Difference, FileState, Line, Plan as PlanView,
    PlanConfiguration,
};

use super::CliError;
use super::client::Client;
use super::output::{Out, go_on, note, one_line, wrap_below};
use crate::config::Config;

/// Show what a configuration would change, and when each change would count. Nothing is applied.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  deployex plan -f deployex.yaml")]
pub(super) struct Plan {
    /// The configuration, or - for standard input; without it, the changed file that the control plane looks at.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Put a configuration in force, after showing what it changes.
///
/// What runs is not restarted for it, save where a change says so. Refused where somebody applied another one meanwhile.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  deployex apply -f deployex.yaml")]
pub(super) struct Apply {
    /// The configuration, or - for standard input; without it, the changed file that the control plane looks at.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Do not ask first. Needed where there is no terminal to ask on.
    #[arg(short, long)]
    yes: bool,
}

impl Plan {
    pub(super) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let plan = match &self.file {
            Some(file) => of_text(client, file, &read(file)?).await?,
            None => pending(client).await?,
        };
        out.show(&plan, render)
    }
}

impl Apply {
    pub(super) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let (plan, wish) = match &self.file {
            Some(file) => {
                let yaml = read(file)?;
                let plan = of_text(client, file, &yaml).await?;
                (plan, ApplyConfiguration { yaml: Some(yaml), ..ApplyConfiguration::default() })
            }
            None => (
                pending(client).await?,
                ApplyConfiguration { pending: true, ..ApplyConfiguration::default() },
            ),
        };
        let from_stdin = self.file.as_deref().is_some_and(is_stdin);
        confirmed(&plan, self.yes, from_stdin, out)?;
        let wish = ApplyConfiguration { base: plan.base, sha256: Some(plan.sha256), ..wish };
        let applied: Applied = client.post("/configuration/apply", &wish).await?;
        out.show(&applied, |applied| format!("{}\n", applied.sentence))
    }
}

/// Shows the plan, and asks unless it was said not to.
pub(super) fn confirmed(plan: &PlanView, yes: bool, from_stdin: bool, out: &Out) -> Result<(), CliError> {
    if !out.json() {
        note(render(plan).trim_end());
    }
    if yes || plan.difference.is_empty() {
        return Ok(());
    }
    if out.json() || from_stdin || !std::io::stdin().is_terminal() {
        let message = "nothing was applied: there is nobody to ask; --yes applies it without asking";
        return Err(CliError::WrongUse(message.to_owned()));
    }
    match go_on("")? {
        true => Ok(()),
        false => Err(CliError::Refused("nothing was applied".to_owned())),
    }
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

/// As text: what is not, is none of ours.
fn read(file: &Path) -> Result<String, CliError> {
    let failed = |error: &dyn std::error::Error| {
        CliError::WrongUse(format!("cannot read {}: {error}", file.display()))
    };
    let bytes = if is_stdin(file) {
        let mut bytes = Vec::new();
        let most = u64::try_from(Config::MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        std::io::stdin().lock().take(most).read_to_end(&mut bytes).map(|_| bytes)
    } else {
        Config::read_file(file)
    };
    String::from_utf8(bytes.map_err(|error| failed(&error))?).map_err(|error| failed(&error))
}

async fn of_text(client: &Client, file: &Path, yaml: &str) -> Result<PlanView, CliError> {
    let body = PlanConfiguration { yaml: yaml.to_owned() };
    let name = if is_stdin(file) { "standard input".to_owned() } else { file.display().to_string() };
    client.post("/configuration/plan", &body).await.map_err(|error| match error {
        // There it has no name.
        CliError::WrongUse(text) => CliError::WrongUse(text.replace("the configuration", &name)),
        other => other,
    })
}

async fn pending(client: &Client) -> Result<PlanView, CliError> {
    let configuration: Configuration = client.get("/configuration").await?;
    let Some(file) = configuration.file else {
        let message = "the control plane was started without a file: name a configuration with -f";
        return Err(CliError::WrongUse(message.to_owned()));
    };
    let path = file.path;
    match file.state {
        FileState::Pending { plan } | FileState::Overridden { plan } => Ok(plan),
        FileState::InForce => Err(CliError::Refused(format!("{path} is in force: it has not changed"))),
        FileState::Unreadable { why } => Err(CliError::Refused(format!("{path} cannot be read: {why}"))),
        FileState::Faulty { faults } => {
            let faults: Vec<String> =
                faults.iter().map(|it| format!("\n  {}: {}", it.path, it.message)).collect();
            Err(CliError::WrongUse(format!(
                "{path} has faults; nothing of it was applied{}",
                faults.concat()
            )))
        }
    }
}

fn render(plan: &PlanView) -> String {
    let PlanView { base, sha256: _, difference, notices } = plan;
    let mut text = match (base, difference.is_empty()) {
        (0, _) => format!("{} against nothing: none is in force yet.\n", capital(&difference.counted())),
        (base, true) => format!("No change against version {base}.\n"),
        (base, false) => format!("{} against version {base}.\n", capital(&difference.counted())),
    };
    text.push_str(&by_class(difference));
    if !notices.is_empty() {
        text.push_str("\nTo know\n");
        for notice in notices {
            text.push_str(&wrap_below("  ", &one_line(notice)));
        }
    }
    text
}

/// Every change below when it counts.
pub(super) fn by_class(difference: &Difference) -> String {
    let mut text = String::new();
    for class in Class::ALL {
        let lines: Vec<String> = difference.lines(class).iter().map(said).collect();
        if lines.is_empty() {
            continue;
        }
        let below: String = lines.iter().map(|line| wrap_below("  ", line)).collect();
        let group = format!("\n{} ({class})\n{below}", capital(class.when()));
        text.push_str(&group);
    }
    text
}

fn said(line: &Line<'_>) -> String {
    let text = one_line(&line.text);
    match line.application {
        None => text,
        Some(name) if line.is_fate => format!("{name} {text}"),
        Some(name) => format!("{name}: {text}"),
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use proto::configuration::{ApplicationChange, Change, Fate, Side};
    use proto::ids::Digest;

    use super::*;

    fn change(key: &str, class: Class, before: &str, after: &str) -> Change {
        let side = |text: &str| match text {
            "" => Side::Absent,
            "?" => Side::Hidden,
            text => Side::Value(text.to_owned()),
        };
        Change { key: key.to_owned(), class, before: side(before), after: side(after) }
    }

    pub(in crate::cli) fn plan() -> PlanView {
        let of = |name: &str, fate, changes| ApplicationChange { name: name.parse().unwrap(), fate, changes };
        PlanView {
            base: 4,
            sha256: Digest([0xab; 32]),
            difference: Difference {
                applications: vec![
                    of("blog", Fate::Removed, vec![]),
                    of(
                        "myapp",
                        Fate::Changed,
                        vec![
                            change("env[DATABASE_URL]", Class::NextDeploy, "?", "?"),
                            change(
                                "ready",
                                Class::NextDeploy,
                                "the first port, or the process",
                                "http /health on the first port expecting 200 every 1000 ms within 2000 ms after 2",
                            ),
                            change("replica_ports[PORT].base", Class::FullDeploy, "4000", "4100"),
                            change("replicas", Class::Immediate, "2", "3"),
                        ],
                    ),
                    of("shop", Fate::Added, vec![]),
                ],
                control_plane: vec![
                    change("monitoring[memory].warning_threshold_percent", Class::Immediate, "", "80"),
                    change("port", Class::Restart, "5001", "5003"),
                ],
            },
            notices: vec![
                "applications[shop].logs is not yet in force: log files are not rotated or removed"
                    .to_owned(),
            ],
        }
    }

    #[test]
    fn a_plan_is_read_by_when_each_change_counts() {
        let text = render(&plan());
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_plan_without_a_change_says_so() {
        let plan = PlanView { difference: Difference::default(), notices: vec![], ..plan() };
        assert_eq!(render(&plan), "No change against version 4.\n");
    }
}
