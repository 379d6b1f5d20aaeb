//! One patient for each thing that can be wrong.

use proto::state::Language;
use serde_json::{Value, json};

use super::*;

const NOW: Time = Time(1_000_000);

fn spec(name: &str) -> AppSpec {
    let mut spec = AppSpec::new(name.parse().unwrap(), Language::Elixir);
    spec.replicas = 2.try_into().unwrap();
    spec
}

/// `web-1/1`, which is this node, or none.
fn replica(place: &str, erlang: Value) -> Replica {
    let (node, slot) = place.split_once('/').unwrap();
    let mut replica = json!({
        "application": "shop", "node": node, "slot": slot.parse::<u16>().unwrap(), "state": "stable", "running": null,
        "assigned": null, "pid": 7, "started_at": "1970-01-01T00:01:00Z", "ports": [], "crash_restarts": 0,
        "forced_restarts": 0, "crashes_since_deploy": 0, "last_exit": null, "next_start_at": null, "fault": null,
        "staging": null, "pre_commands": null, "usage": null, "reported_at": null
    });
    replica["erlang"] = erlang;
    serde_json::from_value(replica).unwrap()
}

fn node(name: &str, connected: &[&str], missed: Value) -> Value {
    let mesh = json!({ "connected": connected, "missed": missed });
    json!({ "name": name, "connected_since": "1970-01-01T00:02:00Z", "mesh": mesh })
}

fn looked(spec: &AppSpec, replicas: &[Replica]) -> Checkup {
    look(&Patient { spec, replicas, others: &[], now: NOW })
}

/// The sentences of this verdict, each with its advice.
fn said(checkup: &Checkup, verdict: Verdict) -> Vec<String> {
    let line = |it: &Finding| match &it.advice {
        Some(advice) => format!("{} => {advice}", it.sentence),
        None => it.sentence.clone(),
    };
    checkup.all().filter(|it| it.verdict == verdict).map(line).collect()
}

fn pair(on: [&str; 2], named: [&str; 2]) -> Vec<Replica> {
    let [one, other] = named;
    vec![replica(on[0], node(one, &[other], json!([]))), replica(on[1], node(other, &[one], json!([])))]
}

#[test]
fn a_whole_mesh_is_well() {
    let checkup = looked(&spec("shop"), &pair(["web-1/1", "web-1/2"], ["shop-1@web-1", "shop-2@web-1"]));
    assert!(checkup.well);
    assert_eq!(
        said(&checkup, Verdict::Well),
        [
            "its agent is connected to it",
            "it is connected to 1 of 1: shop-2@web-1",
            "its agent is connected to it",
            "it is connected to 1 of 1: shop-1@web-1",
        ]
    );
    assert_eq!(said(&checkup, Verdict::Note), [""; 0]);
}

#[test]
fn who_is_missed_is_wrong_once_it_lasts_and_said_with_why_and_what_to_do() {
    let missed =
        |since: &str| json!([{ "name": "shop-2@web-1", "since": since, "kind": "cookie", "because": "no" }]);
    let with = |since| looked(&spec("shop"), &[replica("web-1/1", node("shop-1@web-1", &[], missed(since)))]);
    let checkup = with("1970-01-01T00:16:00Z");
    assert!(!checkup.well);
    let wrong = said(&checkup, Verdict::Wrong).remove(0);
    assert!(
        wrong.starts_with("it has missed shop-2@web-1 for 40 s: no => give all of them the same cookie"),
        "{wrong}"
    );
    assert!(wrong.ends_with("then `deployex restart shop`"), "{wrong}");
    assert!(with("1970-01-01T00:16:35Z").well, "it may be on its way");
}

#[test]
fn why_the_agent_is_not_connected_is_said_and_nothing_is_said_of_the_mesh() {
    let erlang = json!({ "name": "shop-1@web-1", "connected_since": null, "kind": "epmd", "because": "it knows none" });
    let checkup = looked(&spec("shop"), &[replica("web-1/1", erlang)]);
    let wrong = said(&checkup, Verdict::Wrong);
    assert_eq!(wrong.len(), 1);
    assert!(wrong[0].starts_with("its agent is not connected to it: it knows none => see that"), "{wrong:?}");
}

#[test]
fn one_that_is_no_node_is_well_where_it_is_to_be_none() {
    let mut spec = spec("shop");
    let of = |spec: &AppSpec| looked(spec, &[replica("web-1/1", Value::Null)]);
    let wrong = said(&of(&spec), Verdict::Wrong).remove(0);
    assert!(
        wrong.contains("started without a name") && wrong.contains("RELEASE_DISTRIBUTION=none"),
        "{wrong}"
    );
    spec.distribution.mode = DistributionMode::Off;
    assert_eq!(said(&of(&spec), Verdict::Well), ["it is no Erlang node, as distribution.mode off has it"]);
}

#[test]
fn one_whose_host_is_silent_or_that_does_not_run_is_wrong() {
    let mut silent = replica("web-1/1", Value::Null);
    silent.state = SlotState::Unknown;
    let mut down = replica("web-1/2", Value::Null);
    (down.state, down.pid) = (SlotState::BackingOff, None);
    let mut early = replica("web-1/3", Value::Null);
    (early.state, early.pid) = (SlotState::Starting, None);
    let checkup = looked(&spec("shop"), &[silent, down, early]);
    let wrong = said(&checkup, Verdict::Wrong);
    assert!(wrong[0].starts_with("web-1 is not heard from"), "{wrong:?}");
    assert!(wrong[1].starts_with("it does not run ("), "{wrong:?}");
    assert_eq!((wrong.len(), said(&checkup, Verdict::Note).len()), (2, 1));
}

#[test]
fn names_are_to_be_unique_where_they_meet_and_across_hosts_to_lead_to_their_host() {
    let named = ["shop@127.0.0.1"; 2];
    let mut spec = spec("shop");
    let across = pair(["web-1/1", "web-2/1"], named);
    let about_names = |checkup: &Checkup| {
        let names = checkup.findings.iter().filter(|it| it.about == Subject::Names);
        names.map(|it| it.sentence.clone()).collect::<Vec<_>>()
    };
    assert_eq!(about_names(&looked(&spec, &across)), [""; 0], "they never meet");
    assert_eq!(
        about_names(&looked(&spec, &pair(["web-1/1", "web-1/2"], named))),
        ["web-1/1, web-1/2 are all called shop@127.0.0.1: they cannot be connected"]
    );
    spec.cluster = Cluster::Fleet;
    assert_eq!(
        about_names(&looked(&spec, &across)),
        [
            "web-1/1, web-2/1 are all called shop@127.0.0.1: they cannot be connected",
            "shop@127.0.0.1, shop@127.0.0.1: no other host can reach what is called so",
        ]
    );
    spec.cluster = Cluster::Off;
    assert_eq!(about_names(&looked(&spec, &across)), [""; 0]);
}

#[test]
fn a_range_of_ports_has_room_for_all_that_share_it() {
    let mut shop = spec("shop");
    shop.distribution.ports = Some((9_100, 9_104));
    let mut other = spec("other");
    other.distribution.ports = Some((9_104, 9_105));
    let all = pair(["web-1/1", "web-1/2"], ["shop-1@web-1", "shop-2@web-1"]);
    let ports = |others: &[&AppSpec]| {
        let checkup = look(&Patient { spec: &shop, replicas: &all, others, now: NOW });
        (checkup.well, checkup.findings[0].sentence.clone())
    };
    let (well, sentence) = ports(&[]);
    assert!(
        well && sentence.starts_with("distribution.ports 9100 to 9104: 5 ports for up to 3 nodes"),
        "{sentence}"
    );
    let (well, sentence) = ports(&[&other]);
    assert!(
        well && sentence.contains("6 ports for up to 6 nodes on a host (with those of other"),
        "{sentence}"
    );
    other.replicas = 3.try_into().unwrap();
    assert!(!ports(&[&other]).0);
}

#[test]
fn across_hosts_what_a_firewall_must_let_through_and_who_may_listen_is_said() {
    let mut spec = spec("shop");
    spec.cluster = Cluster::Fleet;
    let across = pair(["web-1/1", "web-2/1"], ["shop-1@web-1", "shop-1@web-2"]);
    let checkup = looked(&spec, &across);
    assert!(checkup.well);
    let notes = said(&checkup, Verdict::Note);
    assert!(notes[0].contains("any port") && notes[1].contains("in the clear"), "{notes:?}");
    spec.distribution.ports = Some((9_100, 9_200));
    spec.distribution.tls = DistributionTls::Managed;
    assert_eq!(said(&looked(&spec, &across), Verdict::Note), [""; 0]);
    let mut mixed = across;
    mixed[0].erlang.as_mut().unwrap().tls = Some("managed".to_owned());
    assert!(said(&looked(&spec, &mixed), Verdict::Wrong)[0].starts_with("some of its nodes talk TLS"));
}

#[test]
fn who_can_only_be_dialled_by_the_other_is_said() {
    let mut erlang = node("shop-1@web-1", &["shop-1@web-2"], json!([]));
    let unreached = json!([{ "name": "shop-1@web-2", "since": "1970-01-01T00:02:00Z", "kind": "refused", "because": "refused" }]);
    erlang["mesh"]["unreached"] = unreached;
    let mut spec = spec("shop");
    spec.cluster = Cluster::Fleet;
    let checkup = looked(&spec, &[replica("web-1/1", erlang)]);
    assert!(checkup.well, "it is connected");
    assert!(
        said(&checkup, Verdict::Note)[0].contains("cannot dial that one: refused => let this host reach")
    );
}

#[test]
fn nobody_is_missed_where_nobody_is_to_be_connected() {
    let mut spec = spec("shop");
    spec.cluster = Cluster::Off;
    let erlang = json!({ "name": "shop-1@web-1", "connected_since": "1970-01-01T00:02:00Z" });
    let checkup = looked(&spec, &[replica("web-1/1", erlang)]);
    assert!(checkup.well);
    assert!(
        said(&checkup, Verdict::Well).contains(&"cluster is off: it is connected to nobody by us".to_owned())
    );
}
