//! `deployex app doctor`: what is found of an application's Erlang nodes, and what to do.

use proto::checkup::{Checkup, Finding, Verdict};
use proto::ids::AppName;
use proto::state::Tone;

use super::super::CliError;
use super::super::client::Client;
use super::super::output::{Out, Paint, place, wrap_below};

/// Before what continues a finding.
const INDENT: &str = "           ";

pub(super) async fn run(application: &AppName, client: &Client, out: &mut Out) -> Result<(), CliError> {
    let checkup: Checkup = client.get(&format!("/applications/{application}/doctor")).await?;
    let paint = out.paint;
    out.show(&checkup, |checkup| render(checkup, paint))?;
    match wrong(&checkup) {
        0 => Ok(()),
        count => Err(CliError::Refused(format!("{application}: {count} wrong"))),
    }
}

fn wrong(checkup: &Checkup) -> usize {
    checkup.all().filter(|it| it.verdict == Verdict::Wrong).count()
}

fn render(checkup: &Checkup, paint: Paint) -> String {
    let Checkup { application, cluster, distribution, well, findings, replicas } = checkup;
    let (tone, said) = match well {
        true => (Tone::Ok, "nothing is wrong".to_owned()),
        false => (Tone::Bad, format!("{} wrong", wrong(checkup))),
    };
    let headline = paint.headline(tone, &said);
    let mut text = format!("{application}  {headline}  (cluster {cluster}, distribution {distribution})\n");
    for finding in findings {
        text.push_str(&line(finding, paint));
    }
    for replica in replicas {
        let name = replica.name.as_ref().map(|it| format!("  {it}")).unwrap_or_default();
        text.push_str(&place(&replica.node, replica.slot));
        text.push_str(&name);
        text.push('\n');
        for finding in &replica.findings {
            text.push_str(&line(finding, paint));
        }
    }
    text
}

fn line(finding: &Finding, paint: Paint) -> String {
    let Finding { verdict, sentence, advice, .. } = finding;
    let tone = match verdict {
        Verdict::Well => Tone::Ok,
        Verdict::Note => Tone::Waiting,
        Verdict::Wrong => Tone::Bad,
    };
    let word = verdict.word();
    // Wrapped as if the word were spaces: what colours it takes no room. Before it is its shape.
    let said = wrap_below(INDENT, sentence);
    let padding = " ".repeat(INDENT.len() - 4 - word.len());
    let mut text = format!("  {}{padding}{}", paint.headline(tone, word), said.trim_start());
    if let Some(advice) = advice {
        text.push_str(&wrap_below(INDENT, &format!("to do: {advice}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use proto::checkup::{ReplicaCheckup, Subject};

    use super::*;

    #[test]
    fn what_is_found_is_said_with_what_to_do() {
        let finding = |verdict, sentence: &str, advice: Option<&str>| Finding {
            verdict,
            about: Subject::Mesh,
            sentence: sentence.to_owned(),
            advice: advice.map(str::to_owned),
        };
        let missed = "it has missed myapp-1@web-2 for 40 s: the Erlang name server at 10.0.0.8:4369 cannot be reached: \
                      connection refused";
        let checkup = Checkup {
            application: "myapp".parse().unwrap(),
            cluster: "fleet".to_owned(),
            distribution: "short".to_owned(),
            well: false,
            findings: vec![finding(Verdict::Note, "its nodes listen on any port", Some("name them"))],
            replicas: vec![ReplicaCheckup {
                node: "web-1".parse().unwrap(),
                slot: "1".parse().unwrap(),
                name: Some("myapp-1@web-1".to_owned()),
                findings: vec![
                    finding(Verdict::Well, "its agent is connected to it", None),
                    finding(
                        Verdict::Wrong,
                        missed,
                        Some("let this host reach epmd there, then `deployex restart myapp`"),
                    ),
                ],
            }],
        };
        insta::assert_snapshot!(render(&checkup, Paint { on: false }));
    }
}
