//! Sentences and words that are put together here rather than by the control plane. Pure.

use proto::apps::{Application, ApplicationSummary};
use proto::configuration::{Class, Difference, Fate};
use proto::events::Event;
use proto::ids::{AppName, NodeName, ReleaseKey};
use proto::nodes::{HostLimit, JoinToken, NodeSummary};
use proto::releases::Release;
use proto::replicas::{FailedCheck, LastExit, ProbeList, Replica, Staging};
use proto::rollouts::{Progress, Rollout, RolloutSummary};
use proto::state::{
    HostLevel, Language, Liveness, NodeStage, Role, RolloutPhase, SlotState, StagingPhase, Strategy, Tone,
};
use proto::timestamp::Timestamp;

use crate::format::{bytes, count, duration};

/// `backing-off` as people say it.
pub fn state(state: SlotState) -> &'static str {
    match state {
        SlotState::BackingOff => "backing off",
        other => other.word(),
    }
}

pub fn language(language: Language) -> &'static str {
    match language {
        Language::Elixir => "Elixir",
        Language::Erlang => "Erlang",
        Language::Gleam => "Gleam",
    }
}

pub fn strategy(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::StartFirst => {
            "start first: the new release comes up on a spare slot before any old one stops"
        }
        Strategy::StopFirst => "stop first: each slot is replaced in place",
    }
}

pub fn liveness_tone(liveness: Liveness) -> Tone {
    match liveness {
        Liveness::Up => Tone::Ok,
        Liveness::Suspect => Tone::Waiting,
        Liveness::Lost => Tone::Bad,
    }
}

/// What a role may do, and with it which buttons are there.
pub fn may_operate(role: Role) -> bool {
    role >= Role::Operator
}

pub fn may_administer(role: Role) -> bool {
    role >= Role::Admin
}

/// What putting a configuration in force will do, before it does.
pub fn apply_sentence(difference: &Difference) -> String {
    let of = |fates: &[Fate]| difference.applications.iter().filter(|it| fates.contains(&it.fate)).count();
    let with = |class: Class| !difference.lines(class).is_empty();
    let mut sentences = vec![match difference.count() {
        0 => "It changes nothing of what is in force.".to_owned(),
        1 => "1 change is put in force.".to_owned(),
        many => format!("{many} changes are put in force."),
    }];
    match of(&[Fate::Removed]) {
        0 => {}
        1 => sentences.push("1 application is removed: its replicas are withdrawn.".to_owned()),
        many => sentences.push(format!("{many} applications are removed: their replicas are withdrawn.")),
    }
    if with(Class::FullDeploy) {
        sentences.push("Some replicas are replaced, one by one.".to_owned());
    }
    if with(Class::NextDeploy) {
        sentences.push("What counts with the next deployment restarts nothing now.".to_owned());
    }
    if with(Class::Restart) {
        sentences.push("The control plane has to be started again for some of it.".to_owned());
    }
    sentences.join(" ")
}

/// `9 of 9 ready`.
pub fn ready(summary: &ApplicationSummary) -> String {
    if summary.replicas_wanted == 0 && summary.replicas.is_empty() {
        return "nothing runs yet".to_owned();
    }
    format!("{} of {} ready", counted_ready(summary), summary.replicas_wanted)
}

/// A slot that a rollout has borrowed is one more than is wanted, and no news.
pub fn counted_ready(summary: &ApplicationSummary) -> u32 {
    summary.replicas_ready.min(summary.replicas_wanted)
}

/// What happened, as a sentence; a name at its beginning stays as it is written.
pub fn event_sentence(event: &Event) -> String {
    let names = [event.application.as_ref().map(AppName::as_str), event.node.as_ref().map(NodeName::as_str)];
    let begins_with = |name: &str| event.text.split(' ').next() == Some(name);
    if names.into_iter().flatten().chain(event.by.as_deref()).any(begins_with) {
        full_stop(&event.text)
    } else {
        sentence(&event.text)
    }
}

/// A sentence begins with a capital and ends with a full stop, whoever wrote its middle.
pub fn sentence(text: &str) -> String {
    let text = text.trim();
    let mut letters = text.chars();
    let first: String = letters.next().map(|it| it.to_uppercase().collect()).unwrap_or_default();
    let end = if text.ends_with(['.', ':', '?', '…']) || text.is_empty() { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

/// The end of a sentence that began with a name.
pub fn full_stop(said: &str) -> String {
    let said = said.trim();
    if said.ends_with(['.', '?', '…']) { said.to_owned() } else { format!("{said}.") }
}

/// What a rollout is doing, in front of its reasons.
pub fn rollout_sentence(rollout: &RolloutSummary) -> String {
    let RolloutSummary { application, release, from, phase, aborted_by, .. } = rollout;
    let version = &release.version;
    let failed = if aborted_by.is_some() { "was aborted" } else { "failed" };
    match phase {
        RolloutPhase::Pending => format!("{application} {version} is about to be rolled out."),
        RolloutPhase::Running => match from {
            Some(from) => format!("{application} is moving from {} to {version}.", from.version),
            None => format!("{application} {version} is being deployed for the first time."),
        },
        RolloutPhase::Watching => {
            format!("{application} {version} is stable everywhere and watched for crash loops.")
        }
        RolloutPhase::Reverting => match from {
            Some(from) => format!("{application} {version} {failed}; going back to {}.", from.version),
            None => format!("{application} {version} {failed}; its replicas are being stopped."),
        },
        RolloutPhase::Done => format!("{application} {version} is in force."),
        RolloutPhase::Reverted => match from {
            Some(from) => format!("{application} {version} {failed}; {} is in force again.", from.version),
            None => format!("{application} {version} {failed} and was withdrawn."),
        },
        RolloutPhase::Superseded => format!("A newer wish took the place of {application} {version}."),
        RolloutPhase::Failed => {
            format!("{application} {version} {failed}, and there was nothing to go back to.")
        }
    }
}

/// `3 of 6 slots`.
pub fn progress(progress: Progress) -> String {
    format!("{} of {}", progress.stable, count(progress.total.into(), "slot", "slots"))
}

/// `1.0.0 → 2.0.0`.
pub fn step(from: Option<&ReleaseKey>, to: &ReleaseKey) -> String {
    match from {
        Some(from) if from.version == to.version => {
            format!("{} → {} (republished)", from.version, to.version)
        }
        Some(from) => format!("{} → {}", from.version, to.version),
        None => format!("first {}", to.version),
    }
}

/// What is wrong with a replica, or what it is waiting for.
pub fn trouble(replica: &Replica) -> Option<String> {
    if let Some(fault) = &replica.fault {
        return Some(sentence(fault));
    }
    (replica.state == SlotState::Unknown)
        .then(|| "Its node is not connected: this is what it did last.".to_owned())
}

/// Of a replica whose agent says nothing of an Erlang node.
pub fn no_connection(replica: &Replica) -> &'static str {
    match (replica.state, replica.pid) {
        (SlotState::Unknown, _) => "Its node is not connected: nothing is known of its VM.",
        (_, None) => "It does not run: there is no VM.",
        (_, Some(_)) => "Its agent knows of no Erlang node in its process.",
    }
}

/// What is wrong with the replicas of a node, each fault once: `Slots 1, 2 of shop: ….`
pub fn faults<'a>(replicas: impl IntoIterator<Item = &'a Replica>) -> Vec<String> {
    let mut faults: Vec<(&AppName, &str, Vec<String>)> = Vec::new();
    for it in replicas {
        let Some(fault) = &it.fault else { continue };
        match faults.iter_mut().find(|(app, text, _)| *app == &it.application && *text == fault.as_str()) {
            Some((.., slots)) => slots.push(it.slot.to_string()),
            None => faults.push((&it.application, fault.as_str(), vec![it.slot.to_string()])),
        }
    }
    let said = |(app, fault, slots): (&AppName, &str, Vec<String>)| {
        let slot = if slots.len() == 1 { "Slot" } else { "Slots" };
        full_stop(&format!("{slot} {} of {app}: {fault}", slots.join(", ")))
    };
    faults.into_iter().map(said).collect()
}

pub fn last_exit(exit: &LastExit) -> String {
    let how = match (&exit.because, exit.asked_for) {
        (Some(because), _) => return format!("ended by its agent, {}: {because}", exit.cause),
        (None, true) => "stopped on request",
        (None, false) => "ended by itself",
    };
    format!("{how}, {}", exit.cause)
}

/// In front of how long ago it was.
pub fn failed_check(check: &FailedCheck) -> String {
    let list = match check.list {
        ProbeList::Ready => "ready",
        ProbeList::Live => "live",
    };
    let often = match check.in_a_row {
        0 => "it has passed since".to_owned(),
        1 => "once so far".to_owned(),
        times => format!("{times} times in a row"),
    };
    format!("Last failed {list} check ({often}): {} {},", check.asked, check.outcome)
}

pub fn staging(staging: &Staging) -> String {
    let version = &staging.release.version;
    let doing = match staging.phase {
        StagingPhase::Fetching => {
            format!("{version} is being fetched, {} so far", bytes(staging.fetched_bytes))
        }
        StagingPhase::Linking => format!("{version} is being unpacked and linked"),
        StagingPhase::PreCommands => format!("the pre-commands of {version} run"),
        StagingPhase::Staged => format!("{version} is ready to be started"),
        StagingPhase::Failed => format!("{version} could not be brought here"),
    };
    match &staging.error {
        Some(error) => format!("{}: {error}", sentence(&doing).trim_end_matches('.')),
        None => sentence(&doing),
    }
}

/// What marks a release in lists.
pub fn standing(release: &Release) -> Vec<(&'static str, Tone)> {
    let mut words = Vec::new();
    if release.in_force {
        words.push(("in force", Tone::Ok));
    }
    if release.wanted && !release.in_force {
        words.push(("wanted", Tone::Waiting));
    }
    if release.ghosted.is_some() {
        words.push(("ghosted", Tone::Bad));
    }
    words
}

/// What happens when this release is deployed, for the dialog that asks.
pub fn deploy_sentence(summary: &ApplicationSummary, release: &Release, strategy: Strategy) -> String {
    let replicas = count(summary.replicas_wanted.into(), "replica", "replicas");
    let how = match strategy {
        Strategy::StartFirst => "one node after the other, never fewer ready than now",
        Strategy::StopFirst => "slot by slot, each stopped before its successor starts",
    };
    match &summary.in_force {
        Some(key) if *key == release.key => {
            format!("{} {} is in force already: nothing will move.", summary.name, release.key.version)
        }
        Some(key) => format!(
            "{replicas} of {} go from {} to {}, {how}. If it does not become stable, {} is put back.",
            summary.name, key.version, release.key.version, key.version
        ),
        None => format!(
            "{} {} is deployed for the first time, on every node that may hold it.",
            summary.name, release.key.version
        ),
    }
}

/// What giving a rollout up does, for the dialog that asks.
pub fn abort_sentence(rollout: &RolloutSummary) -> String {
    let RolloutSummary { application, release, from, .. } = rollout;
    let version = &release.version;
    let kept = format!("{version} is not ghosted, and not tried again until somebody wishes it anew.");
    match from {
        Some(from) => format!("Every replica that was moved goes back to {}. {kept}", from.version),
        None => format!(
            "It is the first deployment of {application}: its replicas are taken down, and nothing of it runs then. {kept}"
        ),
    }
}

/// What letting it go on does, for the dialog that asks.
pub fn promote_sentence(rollout: &Rollout) -> String {
    let left = rollout.nodes.iter().filter(|node| node.stage == NodeStage::ToCome).count();
    let behind = match &rollout.batch {
        Some(batch) if batch.canary => "the canary",
        _ => "this batch",
    };
    let nodes = count(left as u64, "node", "nodes");
    let follow = if left == 1 { "follows" } else { "follow" };
    format!("The rollout waits no longer behind {behind}: {nodes} {follow}, batch by batch.")
}

/// What a rollback does, for the dialog that asks.
pub fn rollback_sentence(application: &Application, to: &ReleaseKey) -> String {
    let to = &to.version;
    let how = match &application.current_rollout {
        Some(rollout) => format!(
            "The rollout of {} turns: every replica that was moved goes back to {to}.",
            rollout.summary.release.version
        ),
        None => format!("Every replica goes to {to} as in a deployment of it."),
    };
    let until = match &application.pinned {
        Some(_) => "It is pinned to that from then on.",
        None => "It stays wanted until the bucket names another release than now.",
    };
    format!("{how} {until}")
}

/// What a restart does to so many replicas of an application, for the dialog that asks.
pub fn restart_sentence(replicas: u32, strategy: Strategy) -> String {
    let how = match strategy {
        Strategy::StartFirst => "an extra slot serves meanwhile, so never fewer are ready than now",
        Strategy::StopFirst => "each serves nobody while it starts",
    };
    match replicas {
        1 => format!("1 replica is started anew; {how}."),
        many => format!("{many} replicas are started anew, one by one, each once the last is stable; {how}."),
    }
}

/// The same of everything on a node.
/// A limit of a host that is passed.
pub fn limit_sentence(limit: &HostLimit) -> String {
    let HostLimit { kind, percent, warning_percent, restart_percent, level, since: _, sentence } = limit;
    let allowed = match (level, restart_percent) {
        (HostLevel::Exceeded, Some(restart)) => format!("a replica is restarted from {restart} % on"),
        _ => format!("warned of from {warning_percent} % on"),
    };
    let mut text = format!("The {kind} of this host is {percent:.0} % full ({allowed}).");
    if let Some(sentence) = sentence {
        let mut letters = sentence.chars();
        let first = letters.next().map(|it| it.to_uppercase().to_string()).unwrap_or_default();
        text = format!("{text} {first}{}.", letters.as_str());
    }
    if kind == "disk" {
        text.push_str(
            " Remove what is not needed there: releases, logs and crash dumps lie below the agent's folders.",
        );
    }
    text
}

pub fn restart_node_sentence(node: &NodeSummary) -> String {
    let replicas = count(node.replicas.into(), "replica", "replicas");
    format!(
        "{replicas} on {} are started anew: those of each application one by one, never with fewer ready than its strategy \
         allows. The agent goes on.",
        node.name
    )
}

/// What removing a node does, for the dialog that asks.
pub fn remove_sentence(node: &NodeSummary) -> String {
    let left = match node.replicas {
        0 => "Nothing runs on it.".to_owned(),
        1 => "Its 1 replica goes on running there until the host is cleaned up.".to_owned(),
        many => format!("Its {many} replicas go on running there until the host is cleaned up."),
    };
    format!(
        "The certificate of {} is revoked and its session cut; it cannot come back without a new join token. {left}",
        node.name
    )
}

pub fn token_sentence(token: &JoinToken, now: Timestamp) -> String {
    let left = duration(token.expires_at.0.saturating_sub(now.0));
    let hosts = count(token.uses.into(), "host", "hosts");
    format!("Good for {hosts} within {left}. It is shown this once.")
}

/// A number beside an entry of the rail: only of what needs a person.
pub fn need_attention(applications: usize) -> Option<String> {
    (applications > 0).then(|| count(applications as u64, "application needs you", "applications need you"))
}

#[cfg(test)]
mod tests {
    use proto::configuration::{ApplicationChange, Change, Side};

    use super::*;
    use crate::sample;

    #[test]
    fn who_applies_a_configuration_is_told_what_it_will_do() {
        let change = |class| Change {
            key: "k".to_owned(),
            class,
            before: Side::Absent,
            after: Side::Value("1".to_owned()),
        };
        let app =
            |name: &str, fate, changes| ApplicationChange { name: name.parse().unwrap(), fate, changes };
        let one = Difference { applications: vec![app("a", Fate::Added, vec![])], control_plane: vec![] };
        assert_eq!(apply_sentence(&one), "1 change is put in force.");
        let many = Difference {
            applications: vec![
                app("a", Fate::Removed, vec![]),
                app("b", Fate::Changed, vec![change(Class::FullDeploy), change(Class::NextDeploy)]),
            ],
            control_plane: vec![change(Class::Restart)],
        };
        assert_eq!(
            apply_sentence(&many),
            "4 changes are put in force. 1 application is removed: its replicas are withdrawn. Some replicas are replaced, one \
             by one. What counts with the next deployment restarts nothing now. The control plane has to be started again for \
             some of it."
        );
        assert_eq!(apply_sentence(&Difference::default()), "It changes nothing of what is in force.");
    }

    #[test]
    fn every_phase_has_a_sentence_of_its_own() {
        let mut sentences = Vec::new();
        for phase in RolloutPhase::ALL {
            let mut rollout = sample::rollout("shop", "2.0.0", "1.0.0").summary;
            rollout.phase = *phase;
            sentences.push(rollout_sentence(&rollout));
            rollout.from = None;
            assert!(rollout_sentence(&rollout).contains("2.0.0"));
        }
        sentences.sort();
        sentences.dedup();
        assert_eq!(sentences.len(), RolloutPhase::ALL.len());
    }

    #[test]
    fn who_steers_a_rollout_is_told_what_comes_of_it() {
        let mut rollout = sample::rollout("shop", "2.0.0", "1.0.0");
        rollout.batch = Some(sample::batch(1, true));
        rollout.nodes = vec![sample::rollout_node("a", NodeStage::ToCome, vec![])];
        let promoted = promote_sentence(&rollout);
        assert_eq!(
            promoted,
            "The rollout waits no longer behind the canary: 1 node follows, batch by batch."
        );
        assert!(
            abort_sentence(&rollout.summary).starts_with("Every replica that was moved goes back to 1.0.0.")
        );
        rollout.summary.from = None;
        assert!(abort_sentence(&rollout.summary).contains("its replicas are taken down"));
        rollout.summary.aborted_by = Some("ann".into());
        rollout.summary.phase = RolloutPhase::Failed;
        assert!(rollout_sentence(&rollout.summary).contains("2.0.0 was aborted"));
    }

    #[test]
    fn what_is_wrong_on_a_node_is_said_once_for_all_slots_that_have_it() {
        let replica = |slot, fault: Option<&str>| Replica {
            fault: fault.map(str::to_owned),
            ..sample::replica("shop", "web-1", slot, SlotState::Ready)
        };
        let (full, held) = ("the disk is full", "port 4002 is held by nginx (pid 7)");
        let replicas =
            [replica(1, Some(full)), replica(2, Some(held)), replica(3, Some(full)), replica(4, None)];
        assert_eq!(
            faults(&replicas),
            ["Slots 1, 3 of shop: the disk is full.", "Slot 2 of shop: port 4002 is held by nginx (pid 7)."]
        );
    }

    #[test]
    fn a_sentence_is_one_whoever_wrote_its_middle() {
        assert_eq!(sentence("slot 2 on node-3 must stay ready"), "Slot 2 on node-3 must stay ready.");
        assert_eq!(sentence("It is done."), "It is done.");
        assert_eq!(sentence(""), "");
    }

    #[test]
    fn a_name_at_the_beginning_of_an_event_is_written_as_it_is() {
        let mut event = sample::event(1, "shop 2.0.0 was found");
        assert_eq!(event_sentence(&event), "Shop 2.0.0 was found.");
        event.application = Some(sample::summary("shop").name);
        assert_eq!(event_sentence(&event), "shop 2.0.0 was found.");
    }

    #[test]
    fn a_failed_check_says_what_was_asked_and_how_often_it_failed() {
        let mut check = FailedCheck {
            list: ProbeList::Live,
            asked: "GET /health on port 4000".into(),
            outcome: "answered 503".into(),
            body: "database down".into(),
            at: Timestamp(0),
            in_a_row: 3,
            log_tail: String::new(),
        };
        let said = "Last failed live check (3 times in a row): GET /health on port 4000 answered 503,";
        assert_eq!(failed_check(&check), said);
        check.in_a_row = 0;
        assert!(failed_check(&check).contains("it has passed since"));
    }

    #[test]
    fn a_borrowed_slot_is_not_counted() {
        let mut summary = sample::summary("shop");
        summary.replicas_ready = summary.replicas_wanted + 1;
        assert_eq!(ready(&summary), "3 of 3 ready");
    }

    #[test]
    fn deploying_says_what_goes_and_what_comes_back() {
        let summary = sample::summary("shop");
        let mut release = sample::release("2.0.0");
        let said = deploy_sentence(&summary, &release, Strategy::StartFirst);
        assert!(said.contains("3 replicas of shop go from 1.0.0 to 2.0.0"), "{said}");
        assert!(said.contains("1.0.0 is put back"), "{said}");
        release.key = summary.in_force.clone().unwrap();
        assert!(deploy_sentence(&summary, &release, Strategy::StartFirst).contains("nothing will move"));
    }

    #[test]
    fn removing_a_node_counts_what_stays() {
        let mut node = sample::node_summary("web-1");
        node.replicas = 2;
        assert!(remove_sentence(&node).contains("Its 2 replicas go on running"));
        node.replicas = 0;
        assert!(remove_sentence(&node).contains("Nothing runs on it"));
    }

    #[test]
    fn a_role_may_what_the_one_below_may() {
        assert!(!may_operate(Role::Viewer) && may_operate(Role::Operator) && may_operate(Role::Admin));
        assert!(!may_administer(Role::Operator) && may_administer(Role::Admin));
    }
}
