//! What the upstream files of a host should say. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proto::ids::AppName;
use proto::pb;

use super::super::SlotId;
use super::{Entry, Slots, Standing};
use crate::clock::Time;

/// Every file of ours begins with this; one that does not is not replaced.
pub(super) const MARK: &str = "# Written by DeployEx";

/// An application's file waits so long for a slot that is being taken up, in milliseconds; then it goes on without it.
const UNKNOWN_MAX: u64 = 5_000;

/// Names that NGINX takes without quotes.
const NAME_MAX: usize = 64;

/// What is to be done about an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// It has no file here, or none any more.
    Nothing,
    /// It is not known yet what of it runs: until then.
    Wait {
        until: Time,
    },
    Keep(Upstream),
    /// It cannot be said what the file should hold.
    Fault(String),
}

/// One application's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upstream {
    pub(super) file: PathBuf,
    /// The line that makes NGINX read it.
    pub(super) reload: String,
    /// What is not in it that should be, and why.
    pub(super) fault: Option<String>,
    app: AppName,
    name: String,
    /// Where requests are sent.
    ready: BTreeSet<u16>,
    /// Of slots that are not known: sent to for as long as the file says so already.
    unknown: BTreeSet<u16>,
    /// Named where there is nobody to send to.
    unready: BTreeSet<u16>,
}

/// Of every application that has a slot here.
pub(super) fn plans(slots: &Slots, now: Time) -> BTreeMap<AppName, Plan> {
    let mut apps: BTreeMap<&AppName, Vec<(&SlotId, &Entry)>> = BTreeMap::new();
    for (id, entry) in slots {
        apps.entry(&id.app).or_default().push((id, entry));
    }
    let mut taken: BTreeSet<PathBuf> = BTreeSet::new();
    let mut plans = BTreeMap::new();
    for (app, slots) in apps {
        let mut plan = plan(app, &slots, now);
        // Their configuration was checked; one that was stored before may not have been.
        if let Plan::Keep(upstream) = &plan
            && !taken.insert(upstream.file.clone())
        {
            plan = Plan::Fault(format!("{} is the file of another application", upstream.file.display()));
        }
        plans.insert(app.clone(), plan);
    }
    plans
}

fn plan(app: &AppName, slots: &[(&SlotId, &Entry)], now: Time) -> Plan {
    let mut known: Vec<(&SlotId, &Standing)> = Vec::new();
    let mut unknown: Vec<(&SlotId, Time, Option<&str>)> = Vec::new();
    for (id, entry) in slots {
        match entry {
            Entry::Told(standing) => known.push((id, standing)),
            Entry::Unknown { since, because } => unknown.push((id, *since, because.as_deref())),
        }
    }
    let until = unknown.iter().map(|(_, since, _)| since.plus(UNKNOWN_MAX)).max();
    if let Some(until) = until.filter(|it| now < *it) {
        return Plan::Wait { until };
    }
    let missing = missing(&unknown);
    let newest = known.iter().max_by_key(|(_, it)| (it.is_wanted, it.generation)).map(|(_, it)| *it);
    match (missing, newest.and_then(|it| it.nginx.as_ref())) {
        // Nobody who is known knows the settings.
        (Some(missing), _) if newest.is_none_or(|it| !it.is_wanted) => Plan::Fault(missing),
        (_, None) => Plan::Nothing,
        (missing, Some(nginx)) => {
            let unknown: Vec<&SlotId> = unknown.into_iter().map(|(id, ..)| id).collect();
            keep(app, nginx, &known, &unknown, missing).unwrap_or_else(Plan::Fault)
        }
    }
}

/// An error: why it cannot be said what the file should hold.
fn keep(
    app: &AppName,
    nginx: &pb::Nginx,
    known: &[(&SlotId, &Standing)],
    unknown: &[&SlotId],
    missing: Option<String>,
) -> Result<Plan, String> {
    let file = PathBuf::from(&nginx.upstream_file);
    if !file.is_absolute() || file.file_name().is_none() {
        return Err(format!("upstream_file is {:?}, which is no absolute path", nginx.upstream_file));
    }
    if !is_name(&nginx.upstream) {
        return Err(format!("{:?} is no name of an upstream", nginx.upstream));
    }
    let port = |standing: &Standing| {
        standing.ports.iter().find(|(key, _)| *key == nginx.port).map(|(_, port)| *port)
    };
    let ready = || known.iter().filter(|(_, it)| it.is_ready);
    let listed: BTreeSet<u16> = ready().filter_map(|(_, it)| port(it)).collect();
    let without = ready().find(|(_, it)| port(it).is_none()).map(|(id, _)| {
        format!(
            "slot {} was started without a port {}; its next deployment gives it one",
            id.slot, nginx.port
        )
    });
    if let (true, Some(fault)) = (listed.is_empty(), &without) {
        // What the file says of them is of a time when it could be said.
        return Err(fault.clone());
    }
    // From slot to slot it is one port on, and those who are known say from where.
    let ports = || known.iter().filter_map(|(id, it)| Some((id.slot.number(), port(it)?)));
    let beside = |id: &SlotId| {
        let slot = i32::from(id.slot.number());
        ports().filter_map(move |(other, port)| u16::try_from(i32::from(port) + slot - i32::from(other)).ok())
    };
    Ok(Plan::Keep(Upstream {
        file,
        reload: nginx.reload.clone(),
        fault: missing.into_iter().chain(without).reduce(|all, it| format!("{all}; {it}")),
        app: app.clone(),
        name: nginx.upstream.clone(),
        ready: listed,
        unknown: unknown.iter().flat_map(|id| beside(id)).collect(),
        unready: ports().map(|(_, port)| port).collect(),
    }))
}

/// Which slots are not known, and of the first of them why not.
fn missing(unknown: &[(&SlotId, Time, Option<&str>)]) -> Option<String> {
    let (id, _, because) = unknown.first()?;
    let others = match unknown.len() - 1 {
        0 => String::new(),
        others => format!(" (and so {others} more)"),
    };
    let because = because.map_or_else(|| "it is being taken up".to_owned(), str::to_owned);
    Some(format!(
        "slot {} is not known{others}, and what is said of it is left as it was: {because}",
        id.slot
    ))
}

fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(fits)
}

impl Upstream {
    /// What the file should say where it says this now.
    pub(super) fn text(&self, present: Option<&str>) -> String {
        let lines: BTreeSet<&str> = present.unwrap_or_default().lines().map(str::trim).collect();
        let is_there = |port: &u16| lines.contains(server(*port, "").as_str());
        let listed: BTreeSet<u16> =
            self.ready.iter().chain(self.unknown.iter().filter(|it| is_there(it))).copied().collect();
        // NGINX wants at least one; nobody is sent to it.
        let nobody = BTreeSet::from([1]);
        let (ports, mark) = match (listed.is_empty(), self.unready.is_empty()) {
            (false, _) => (&listed, ""),
            (true, false) => (&self.unready, " down"),
            (true, true) => (&nobody, " down"),
        };
        let servers: Vec<String> = ports.iter().map(|it| format!("    {}\n", server(*it, mark))).collect();
        text(&self.app, &self.name, &servers.concat())
    }
}

fn server(port: u16, mark: &str) -> String {
    format!("server 127.0.0.1:{port}{mark};")
}

/// `keepalive` counts only where the server block speaks HTTP/1.1 to the upstream. Its connections are given up well before a
/// replica gives them up: Cowboy and Bandit do after 60 s, and a request that meets that end is lost.
fn text(app: &AppName, upstream: &str, servers: &str) -> String {
    format!(
        "{MARK}: the replicas of {app} on this host that are ready. What is changed here is lost.\n\
         upstream {upstream} {{\n{servers}    keepalive 32;\n    keepalive_timeout 30s;\n}}\n"
    )
}

/// Whether a file of that content may be replaced.
pub(super) fn is_ours(text: &str) -> bool {
    text.trim().is_empty() || text.starts_with(MARK)
}

/// The name under which the next content is written beside the file: no pattern of NGINX's `include` matches it.
pub(super) fn temporary(file: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    file.with_file_name(format!(".{name}.deployex"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(100_000);

    fn nginx() -> pb::Nginx {
        pb::Nginx {
            upstream_file: "/etc/nginx/conf.d/shop.conf".to_owned(),
            upstream: "shop".to_owned(),
            port: "PORT".to_owned(),
            reload: String::new(),
        }
    }

    fn slot(number: u16, is_ready: bool) -> (SlotId, Entry) {
        slot_of("shop", number, is_ready)
    }

    fn slot_of(app: &str, number: u16, is_ready: bool) -> (SlotId, Entry) {
        let id =
            SlotId { app: app.parse().unwrap(), slot: proto::ids::Slot::new(u32::from(number)).unwrap() };
        let ports = vec![("ADMIN".to_owned(), 9000 + number), ("PORT".to_owned(), 3999 + number)];
        (id, Entry::Told(Standing { generation: 1, is_wanted: true, nginx: Some(nginx()), ports, is_ready }))
    }

    fn told(slots: impl IntoIterator<Item = (SlotId, Entry)>) -> Plan {
        plans(&slots.into_iter().collect(), NOW)["shop".parse::<AppName>().as_ref().unwrap()].clone()
    }

    /// The same slot, of which more is said.
    fn but((id, entry): (SlotId, Entry), change: impl FnOnce(&mut Standing)) -> (SlotId, Entry) {
        let Entry::Told(mut standing) = entry else { panic!("{entry:?}") };
        change(&mut standing);
        (id, Entry::Told(standing))
    }

    fn unknown(number: u16, since: Time, because: Option<&str>) -> (SlotId, Entry) {
        (slot(number, true).0, Entry::Unknown { since, because: because.map(str::to_owned) })
    }

    fn listed(plan: &Plan) -> Vec<String> {
        listed_beside(plan, "")
    }

    fn listed_beside(plan: &Plan, present: &str) -> Vec<String> {
        let Plan::Keep(upstream) = plan else { panic!("{plan:?}") };
        let text = upstream.text(Some(present));
        text.lines().filter_map(|it| Some(it.trim().strip_prefix("server ")?.to_owned())).collect()
    }

    #[test]
    fn exactly_the_ready_slots_are_listed_the_spare_one_too() {
        let plan = told([slot(1, true), slot(2, false), slot(3, true), slot(4, true)]);
        let Plan::Keep(upstream) = plan else { panic!("{plan:?}") };
        assert_eq!(upstream.file, Path::new("/etc/nginx/conf.d/shop.conf"));
        let text = upstream.text(None);
        assert_eq!(
            text,
            "# Written by DeployEx: the replicas of shop on this host that are ready. What is changed here is lost.\n\
             upstream shop {\n    server 127.0.0.1:4000;\n    server 127.0.0.1:4002;\n    \
             server 127.0.0.1:4003;\n    keepalive 32;\n    keepalive_timeout 30s;\n}\n"
        );
        assert!(is_ours(&text) && is_ours("\n") && !is_ours("upstream mine {}"));
    }

    #[test]
    fn without_a_ready_slot_all_are_down_so_that_the_file_is_valid() {
        let plan = told([slot(1, false), slot(2, false)]);
        assert_eq!(listed(&plan), ["127.0.0.1:4000 down;", "127.0.0.1:4001 down;"]);
        let portless = but(slot(1, false), |it| it.ports.clear());
        assert_eq!(listed(&told([portless])), ["127.0.0.1:1 down;"]);
    }

    #[test]
    fn a_slot_that_is_being_taken_up_is_waited_for() {
        let since = Time(NOW.0 - UNKNOWN_MAX + 1);
        let plan = told([slot(1, true), unknown(2, since, Some("the disk is slow"))]);
        assert_eq!(plan, Plan::Wait { until: NOW.plus(1) });
    }

    #[test]
    fn one_that_cannot_be_taken_up_is_named_and_the_others_go_on_without_it() {
        let since = Time(NOW.0 - UNKNOWN_MAX);
        let unknown = |number| unknown(number, since, Some("cannot read its ledger"));
        let plan = told([slot(1, true), unknown(2), slot(3, false), unknown(4)]);
        let Plan::Keep(Upstream { fault: Some(fault), .. }) = &plan else { panic!("{plan:?}") };
        assert_eq!(
            fault,
            "slot 2 is not known (and so 1 more), and what is said of it is left as it was: cannot read its ledger"
        );
        assert_eq!(listed(&plan), ["127.0.0.1:4000;"]);
        // Whom requests are sent to goes on to get them, as long as nobody knows better.
        let present =
            "    server 127.0.0.1:4001;\n    server 127.0.0.1:4002;\n    server 127.0.0.1:4003 down;\n";
        assert_eq!(listed_beside(&plan, present), ["127.0.0.1:4000;", "127.0.0.1:4001;"]);
        let plan = told([slot(1, false), unknown(2)]);
        assert_eq!(listed_beside(&plan, present), ["127.0.0.1:4001;"]);
        assert_eq!(listed(&plan), ["127.0.0.1:4000 down;"]);
        // Where it alone is to know what the file should be, that is left as it is.
        assert!(
            matches!(told([unknown(2)]), Plan::Fault(fault) if fault.starts_with("slot 2 is not known,"))
        );
        let withdrawn = but(slot(1, true), |it| it.is_wanted = false);
        assert!(matches!(told([withdrawn, unknown(2)]), Plan::Fault(_)));
    }

    #[test]
    fn the_newest_settings_count_and_without_the_key_the_file_is_nobodys() {
        let newer = but(slot(2, true), |it| {
            it.generation = 2;
            it.nginx.as_mut().unwrap().port = "ADMIN".to_owned();
        });
        assert_eq!(listed(&told([slot(1, true), newer.clone()])), ["127.0.0.1:9001;", "127.0.0.1:9002;"]);
        assert_eq!(told([slot(1, true), but(newer, |it| it.nginx = None)]), Plan::Nothing);
    }

    #[test]
    fn what_a_withdrawn_slot_was_told_last_counts_only_among_withdrawn_ones() {
        let withdrawn = but(slot(2, false), |it| (it.generation, it.is_wanted, it.nginx) = (9, false, None));
        assert_eq!(listed(&told([slot(1, true), withdrawn.clone()])), ["127.0.0.1:4000;"]);
        // While it is ready it is in the file, as the settings of now say.
        let ready = but(withdrawn, |it| it.is_ready = true);
        assert_eq!(listed(&told([slot(1, true), ready.clone()])), ["127.0.0.1:4000;", "127.0.0.1:4001;"]);
        assert_eq!(listed(&told([but(ready, |it| it.nginx = Some(nginx()))])), ["127.0.0.1:4001;"]);
    }

    #[test]
    fn a_slot_without_the_port_is_named_and_does_not_take_the_others_along() {
        let portless = but(slot(2, true), |it| it.ports.clear());
        let plan = told([slot(1, true), portless.clone()]);
        assert_eq!(listed(&plan), ["127.0.0.1:4000;"]);
        let Plan::Keep(Upstream { fault: Some(fault), .. }) = plan else { panic!("{plan:?}") };
        assert!(fault.starts_with("slot 2 was started without a port PORT"), "{fault}");
        // Of none can it be said where it listens: what the file says is better than that nobody is there.
        assert!(matches!(told([slot(1, false), portless]), Plan::Fault(_)));
    }

    #[test]
    fn what_would_not_be_one_file_of_ours_is_a_fault() {
        let with =
            |change: fn(&mut pb::Nginx)| told([but(slot(1, true), |it| change(it.nginx.as_mut().unwrap()))]);
        assert!(matches!(with(|it| it.upstream = "x { server evil; } #".to_owned()), Plan::Fault(_)));
        assert!(matches!(with(|it| it.upstream_file = "relative".to_owned()), Plan::Fault(_)));
        let plans = plans(&[slot_of("bakery", 1, true), slot(1, true)].into(), NOW);
        assert!(
            matches!(plans.values().collect::<Vec<_>>()[..], [Plan::Keep(_), Plan::Fault(_)]),
            "{plans:?}"
        );
    }

    #[test]
    fn no_include_takes_up_what_is_half_written() {
        assert_eq!(
            temporary(Path::new("/etc/nginx/conf.d/a.conf")),
            Path::new("/etc/nginx/conf.d/.a.conf.deployex")
        );
    }
}
