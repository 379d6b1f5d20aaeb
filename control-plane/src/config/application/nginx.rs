//! `nginx`: the upstream file that lists an application's ready replicas on each host, and who owns it.

use super::{Written, probes};
use crate::config::fault::{Origin, Sink};
use crate::config::fields::Fields;
use crate::config::rules::{self, Allowed, Checked, Scalar};
use crate::config::tree::Value;
use crate::spec::{AppSpec, NginxSpec};

/// Where the file is named, for [`check`].
pub(super) fn read(f: &mut Fields<'_>, spec: &mut AppSpec) -> Option<Origin> {
    let Some(mut n) = f.below("nginx") else {
        drains_in_vain(f, spec);
        return None;
    };
    let file = n.required("upstream_file", rules::absolute_path);
    let upstream = n.required("upstream", upstream);
    let port = n.required("port", key_of(&spec.ports));
    let reload = n.read("reload", probes::command);
    let at = n.node("upstream_file").map(|it| it.at.clone());
    n.finish();
    spec.nginx = Some(NginxSpec {
        upstream_file: file?.display().to_string(),
        upstream: upstream?,
        port: port?,
        reload: reload.unwrap_or_else(|| NginxSpec::USUAL_RELOAD.to_owned()),
    });
    at
}

/// To drain is to be sent no more requests: nobody but NGINX is told here whom to send them to.
fn drains_in_vain(f: &mut Fields<'_>, spec: &AppSpec) {
    let Some(Value::Map(deploy)) = f.node("deploy").map(|it| &it.value) else { return };
    if deploy.iter().any(|it| it.key == "drain_ms") && spec.deploy.drain.0 > 0 {
        f.sink.notice(format!(
            "deploy.drain_ms of {} has no effect: without `nginx` nobody is told to send a replica no more requests",
            spec.name
        ));
    }
}

/// Two applications with one file would write it in turn.
pub(super) fn check(apps: &[Written], sink: &Sink<'_>) {
    let owned =
        apps.iter().filter_map(|app| Some((app, app.spec.nginx.as_ref()?, app.upstream_file.as_ref()?)));
    let owned: Vec<_> = owned.collect();
    for (index, (app, nginx, at)) in owned.iter().enumerate() {
        let earlier = owned[..index].iter().find(|(_, it, _)| it.upstream_file == nginx.upstream_file);
        if let Some((other, ..)) = earlier {
            let path = app.path.key("nginx").key("upstream_file");
            let found = format!("the upstream file of {}", other.spec.name);
            sink.fault((*at).clone(), path.as_str(), found, "each application needs a file of its own");
        }
    }
}

fn upstream(scalar: Scalar<'_>) -> Checked<String> {
    rules::path_part(scalar)
        .map_err(|_| Allowed("the name of an NGINX upstream: a-z A-Z 0-9 . _ -".to_owned()))
}

fn key_of(ports: &[crate::spec::PortBase]) -> impl Fn(Scalar<'_>) -> Checked<String> + '_ {
    move |scalar| probes::port_of(ports)(scalar).map(|()| scalar.text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use crate::config::{Config, Flags};
    use crate::spec::{Millis, NginxSpec};

    fn read(yaml: &str) -> Config {
        Config::read(Some((Path::new("f"), yaml.as_bytes())), &Flags::default(), &BTreeMap::new()).unwrap()
    }

    #[test]
    fn the_file_is_named_and_the_reload_is_the_usual_one_unless_another_is() {
        let config = read(
            "applications:
  - name: one
    replica_ports: [{ key: PORT, base: 4000 }]
    nginx: { upstream_file: /etc/nginx/conf.d/one.conf, upstream: one, port: PORT }
    deploy: { drain_ms: 2s }
  - { name: two, replica_ports: [{ key: PORT, base: 4100 }] }
",
        );
        let expected = NginxSpec {
            upstream_file: "/etc/nginx/conf.d/one.conf".to_owned(),
            upstream: "one".to_owned(),
            port: "PORT".to_owned(),
            reload: "nginx -s reload".to_owned(),
        };
        assert_eq!(config.applications[0].nginx, Some(expected));
        assert_eq!(config.applications[0].deploy.drain, Millis(2_000));
        assert_eq!(
            (&config.applications[1].nginx, config.applications[1].deploy.drain),
            (&None, Millis(5_000))
        );
        assert!(config.notices.is_empty(), "{:?}", config.notices);
        let said = config.not_yet_in_force();
        assert!(!said.iter().any(|it| it.contains("nginx") || it.contains("drain")), "{said:?}");
    }

    #[test]
    fn who_drains_for_nobody_is_told_so() {
        let notices = |drain: &str| {
            read(&format!("applications: [{{ name: one, deploy: {{ drain_ms: {drain} }} }}]\n"))
                .notices
                .concat()
        };
        assert!(notices("1s").contains("drain_ms of one has no effect"), "{}", notices("1s"));
        assert_eq!(notices("0"), "");
    }
}
