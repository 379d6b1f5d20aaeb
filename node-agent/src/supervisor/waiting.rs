//! Which settings of an application wait for the next full deployment, or a restart, of a replica: those that a start takes and
//! that have changed since. A hot upgrade brings none of them. Pure; what counts at once is not looked at.

use std::collections::BTreeMap;

use proto::pb;

/// More of them say nothing more.
const NAMED: usize = 20;

/// As a configuration calls them. `launched`: what runs was started with.
pub(super) fn waiting(launched: &pb::Application, wanted: &pb::Application) -> Vec<String> {
    let variables = |of: &'_ pb::Application| -> BTreeMap<String, String> {
        of.env.iter().map(|it| (it.key.clone(), it.value.clone())).collect()
    };
    let (had, has) = (variables(launched), variables(wanted));
    let changed = had.keys().chain(has.keys().filter(|it| !had.contains_key(*it)));
    let env = changed.filter(|key| had.get(*key) != has.get(*key)).map(|key| format!("env[{key}]"));
    let others = [
        ("env_file", launched.env_file != wanted.env_file),
        ("language", launched.language != wanted.language),
        (
            "run_as",
            (&launched.run_as_user, &launched.run_as_group) != (&wanted.run_as_user, &wanted.run_as_group),
        ),
        ("the cookie", launched.cookie != wanted.cookie),
        ("distribution", launched.distribution != wanted.distribution),
        ("replica_ports", launched.ports != wanted.ports),
        ("ready", (launched.ready, &launched.ready_probes) != (wanted.ready, &wanted.ready_probes)),
        ("live", launched.live_probes != wanted.live_probes),
    ];
    let others = others.into_iter().filter(|(_, is)| *is).map(|(name, _)| name.to_owned());
    env.chain(others).take(NAMED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> pb::Application {
        let entry = |key: &str, value: &str| pb::EnvEntry { key: key.to_owned(), value: value.to_owned() };
        pb::Application {
            name: "shop".to_owned(),
            env: vec![entry("A", "1"), entry("B", "2"), entry("C", "3")],
            ..pb::Application::default()
        }
    }

    #[test]
    fn what_a_start_takes_is_named_and_what_counts_at_once_is_not() {
        let launched = app();
        let with = |change: &dyn Fn(&mut pb::Application)| {
            let mut wanted = app();
            change(&mut wanted);
            waiting(&launched, &wanted)
        };
        assert_eq!(with(&|_| {}), Vec::<String>::new());
        assert_eq!(with(&|it| it.env.reverse()), Vec::<String>::new());
        let env = with(&|it| {
            it.env[0].value = "s3cret".to_owned();
            it.env[1].key = "D".to_owned();
        });
        assert_eq!(env, ["env[A]", "env[B]", "env[D]"], "names alone");
        let others = with(&|it| {
            it.env_file = "/etc/shop".to_owned();
            it.run_as_user = "shop".to_owned();
            it.cookie = "other".to_owned();
            it.distribution = Some(pb::Distribution::default());
            it.live_probes.push(pb::Probe::default());
        });
        assert_eq!(others, ["env_file", "run_as", "the cookie", "distribution", "live"]);
        let at_once = with(&|it| {
            (it.drain_ms, it.stop_grace_ms, it.backoff_min_ms) = (7, 8, 9);
            it.limits = Some(pb::Limits::default());
            it.nginx = Some(pb::Nginx::default());
        });
        assert_eq!(at_once, Vec::<String>::new());
        let many = with(&|it| {
            it.env =
                (0..50).map(|nth| pb::EnvEntry { key: format!("K{nth}"), ..Default::default() }).collect();
        });
        assert_eq!(many.len(), NAMED);
    }
}
