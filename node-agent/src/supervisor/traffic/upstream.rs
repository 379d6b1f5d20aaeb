//! What the upstream files of a host should say. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use proto::ids::AppName;

use super::super::SlotId;
use super::{Slots, Standing};

/// Every file of ours begins with this; one that does not is not replaced.
pub(super) const MARK: &str = "# Written by DeployEx";

/// Names that NGINX takes without quotes.
const NAME_MAX: usize = 64;

/// What is to be done about an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// It has no file here, or none any more.
    Nothing,
    /// It is not known yet what of it runs.
    Wait,
    Keep(Upstream),
    /// It cannot be said what the file should hold.
    Fault(String),
}

/// One application's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upstream {
    pub(super) file: PathBuf,
    pub(super) text: String,
    /// The line that makes NGINX read it.
    pub(super) reload: String,
    /// A ready slot that is not in it, and why.
    pub(super) fault: Option<String>,
}

/// Of every application that has a slot here.
pub(super) fn plans(slots: &Slots) -> BTreeMap<AppName, Plan> {
    let mut apps: BTreeMap<&AppName, Vec<(&SlotId, &Option<Standing>)>> = BTreeMap::new();
    for (id, standing) in slots {
        apps.entry(&id.app).or_default().push((id, standing));
    }
    let mut taken: BTreeSet<PathBuf> = BTreeSet::new();
    let mut plans = BTreeMap::new();
    for (app, slots) in apps {
        let mut plan = plan(app, &slots);
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

fn plan(app: &AppName, slots: &[(&SlotId, &Option<Standing>)]) -> Plan {
    let known: Option<Vec<(&SlotId, &Standing)>> =
        slots.iter().map(|(id, standing)| Some((*id, standing.as_ref()?))).collect();
    let Some(known) = known else { return Plan::Wait };
    let newest = known.iter().max_by_key(|(_, it)| (it.is_wanted, it.generation));
    let Some(nginx) = newest.and_then(|(_, it)| it.nginx.as_ref()) else { return Plan::Nothing };
    let file = PathBuf::from(&nginx.upstream_file);
    if !file.is_absolute() || file.file_name().is_none() {
        return Plan::Fault(format!("upstream_file is {:?}, which is no absolute path", nginx.upstream_file));
    }
    if !is_name(&nginx.upstream) {
        return Plan::Fault(format!("{:?} is no name of an upstream", nginx.upstream));
    }
    let port = |standing: &Standing| {
        standing.ports.iter().find(|(key, _)| *key == nginx.port).map(|(_, port)| *port)
    };
    let ready = || known.iter().filter(|(_, it)| it.is_ready);
    let listed: Vec<u16> = ready().filter_map(|(_, it)| port(it)).collect();
    let without = ready().find(|(_, it)| port(it).is_none());
    let fault = without.map(|(id, _)| {
        format!(
            "slot {} was started without a port {}; its next deployment gives it one",
            id.slot, nginx.port
        )
    });
    if let (true, Some(fault)) = (listed.is_empty(), &fault) {
        // What the file says of them is of a time when it could be said.
        return Plan::Fault(fault.clone());
    }
    let servers = match listed.is_empty() {
        false => servers(&listed, ""),
        true => {
            let all: BTreeSet<u16> = known.iter().filter_map(|(_, it)| port(it)).collect();
            // NGINX wants at least one; nobody is sent to it.
            let all = if all.is_empty() { [1].into() } else { all };
            servers(&all.into_iter().collect::<Vec<_>>(), " down")
        }
    };
    Plan::Keep(Upstream {
        text: text(app, &nginx.upstream, &servers),
        file,
        reload: nginx.reload.clone(),
        fault,
    })
}

fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(fits)
}

fn servers(ports: &[u16], mark: &str) -> String {
    let mut text = String::new();
    for port in ports {
        let _ = writeln!(text, "    server 127.0.0.1:{port}{mark};");
    }
    text
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
    use proto::pb;

    use super::*;

    fn nginx() -> pb::Nginx {
        pb::Nginx {
            upstream_file: "/etc/nginx/conf.d/shop.conf".to_owned(),
            upstream: "shop".to_owned(),
            port: "PORT".to_owned(),
            reload: String::new(),
        }
    }

    fn slot(number: u16, is_ready: bool) -> (SlotId, Option<Standing>) {
        slot_of("shop", number, is_ready)
    }

    fn slot_of(app: &str, number: u16, is_ready: bool) -> (SlotId, Option<Standing>) {
        let id =
            SlotId { app: app.parse().unwrap(), slot: proto::ids::Slot::new(u32::from(number)).unwrap() };
        let ports = vec![("ADMIN".to_owned(), 9000 + number), ("PORT".to_owned(), 3999 + number)];
        (id, Some(Standing { generation: 1, is_wanted: true, nginx: Some(nginx()), ports, is_ready }))
    }

    fn told(slots: impl IntoIterator<Item = (SlotId, Option<Standing>)>) -> Plan {
        plans(&slots.into_iter().collect())["shop".parse::<AppName>().as_ref().unwrap()].clone()
    }

    fn listed(plan: &Plan) -> Vec<&str> {
        let Plan::Keep(upstream) = plan else { panic!("{plan:?}") };
        upstream.text.lines().filter_map(|it| it.trim().strip_prefix("server ")).collect()
    }

    #[test]
    fn exactly_the_ready_slots_are_listed_the_spare_one_too() {
        let plan = told([slot(1, true), slot(2, false), slot(3, true), slot(4, true)]);
        let Plan::Keep(Upstream { file, text, .. }) = plan else { panic!("{plan:?}") };
        assert_eq!(file, Path::new("/etc/nginx/conf.d/shop.conf"));
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
        let (id, mut portless) = slot(1, false);
        portless.as_mut().unwrap().ports.clear();
        assert_eq!(listed(&told([(id, portless)])), ["127.0.0.1:1 down;"]);
    }

    #[test]
    fn nothing_is_said_of_an_application_before_all_of_it_is_known() {
        assert_eq!(told([slot(1, true), (slot(2, true).0, None)]), Plan::Wait);
    }

    #[test]
    fn the_newest_settings_count_and_without_the_key_the_file_is_nobodys() {
        let (id, mut newer) = slot(2, true);
        if let Some(it) = &mut newer {
            it.generation = 2;
            it.nginx.as_mut().unwrap().port = "ADMIN".to_owned();
        }
        assert_eq!(
            listed(&told([slot(1, true), (id.clone(), newer.clone())])).concat(),
            "127.0.0.1:9001;127.0.0.1:9002;"
        );
        newer.as_mut().unwrap().nginx = None;
        assert_eq!(told([slot(1, true), (id, newer)]), Plan::Nothing);
    }

    #[test]
    fn what_a_withdrawn_slot_was_told_last_counts_only_among_withdrawn_ones() {
        let (spare, mut withdrawn) = slot(2, false);
        if let Some(it) = &mut withdrawn {
            (it.generation, it.is_wanted, it.nginx) = (9, false, None);
        }
        assert_eq!(listed(&told([slot(1, true), (spare.clone(), withdrawn.clone())])), ["127.0.0.1:4000;"]);
        // While it is ready it is in the file, as the settings of now say.
        if let Some(it) = &mut withdrawn {
            it.is_ready = true;
        }
        let plan = told([slot(1, true), (spare.clone(), withdrawn.clone())]);
        assert_eq!(listed(&plan), ["127.0.0.1:4000;", "127.0.0.1:4001;"]);
        if let Some(it) = &mut withdrawn {
            it.nginx = Some(nginx());
        }
        assert_eq!(listed(&told([(spare, withdrawn)])), ["127.0.0.1:4001;"]);
    }

    #[test]
    fn a_slot_without_the_port_is_named_and_does_not_take_the_others_along() {
        let (id, mut portless) = slot(2, true);
        portless.as_mut().unwrap().ports.clear();
        let plan = told([slot(1, true), (id.clone(), portless.clone())]);
        assert_eq!(listed(&plan), ["127.0.0.1:4000;"]);
        let Plan::Keep(Upstream { fault: Some(fault), .. }) = plan else { panic!("{plan:?}") };
        assert!(fault.starts_with("slot 2 was started without a port PORT"), "{fault}");
        // Of none can it be said where it listens: what the file says is better than that nobody is there.
        assert!(matches!(told([slot(1, false), (id, portless)]), Plan::Fault(_)));
    }

    #[test]
    fn what_would_not_be_one_file_of_ours_is_a_fault() {
        let with = |change: fn(&mut pb::Nginx)| {
            let (id, mut standing) = slot(1, true);
            change(standing.as_mut().unwrap().nginx.as_mut().unwrap());
            told([(id, standing)])
        };
        assert!(matches!(with(|it| it.upstream = "x { server evil; } #".to_owned()), Plan::Fault(_)));
        assert!(matches!(with(|it| it.upstream_file = "relative".to_owned()), Plan::Fault(_)));
        let plans = plans(&[slot_of("bakery", 1, true), slot(1, true)].into());
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
