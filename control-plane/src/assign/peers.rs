//! For which hosts a node may have certificates for TLS between Erlang nodes: those that a replica there can be named after.

use proto::ids::{AppName, NodeId, NodeName};

use super::{Assignments, Secrets, variables};
use crate::db::DbError;
use crate::spec::AppSpec;

impl Assignments {
    /// Which hosts the Erlang nodes of the application may be of on that node; `None`: none of its slots is of the application.
    pub async fn peer_hosts(&self, node: NodeId, app: &AppName) -> Result<Option<Vec<String>>, DbError> {
        let wanted = self.db.node_assignment(node).await?;
        let Some(application) = wanted.applications.get(app) else { return Ok(None) };
        if !wanted.slots.keys().any(|(of, _)| of == app) {
            return Ok(None);
        }
        let inventory = self.db.node(node).await?.and_then(|it| it.inventory).unwrap_or_default();
        let own = names_of(&inventory.hostname);
        let mut of_others = Vec::new();
        for name in &own {
            let Ok(name) = name.parse::<NodeName>() else { continue };
            let called_so = self.db.node_by_name(&name).await?;
            of_others.extend(called_so.filter(|it| it.id != node).map(|it| it.name.to_string()));
        }
        Ok(Some(hosts(configured(&application.spec, &*self.secrets), own, &of_others)))
    }
}

/// What an agent says of its host is its word alone: with the name of another node it would get what is that one's.
fn hosts(configured: Vec<String>, own: Vec<String>, of_others: &[String]) -> Vec<String> {
    let own = own.into_iter().filter(|it| !of_others.contains(it));
    let mut hosts: Vec<_> = configured.into_iter().chain(own).filter(|it| !it.is_empty()).collect();
    hosts.dedup();
    hosts
}

/// What the configuration says: `distribution.host`, and the host of a `RELEASE_NODE` of the application's own.
fn configured(spec: &AppSpec, secrets: &dyn Secrets) -> Vec<String> {
    let variables = variables(spec, secrets).unwrap_or_default();
    let named = variables.iter().rfind(|it| it.key == "RELEASE_NODE");
    let named = named.and_then(|it| it.value.split_once('@')).map(|(_, host)| host.to_owned());
    spec.distribution.host.clone().into_iter().chain(named).collect()
}

/// With its domain, and the short one.
fn names_of(hostname: &str) -> Vec<String> {
    vec![hostname.to_owned(), hostname.split('.').next().unwrap_or_default().to_owned()]
}

#[cfg(test)]
mod tests {
    use proto::state::Language;

    use super::*;
    use crate::assign::Unopened;
    use crate::spec::{EnvEntry, EnvValue};

    struct None;

    impl Secrets for None {
        fn cookie(&self, _: &AppName, _: &[u8]) -> Result<String, Unopened> {
            Err("there is none".into())
        }

        fn value(&self, _: &str) -> Result<String, Unopened> {
            Err("there is none".into())
        }
    }

    #[test]
    fn a_node_is_its_own_host_and_what_is_configured_and_never_another_node() {
        let of = |hostname: &str, of_others: &[&str]| {
            let of_others: Vec<String> = of_others.iter().map(|it| (*it).to_owned()).collect();
            hosts(vec!["10.0.0.7".to_owned()], names_of(hostname), &of_others)
        };
        assert_eq!(of("web-1.example.com", &[]), ["10.0.0.7", "web-1.example.com", "web-1"]);
        assert_eq!(of("web-1", &[]), ["10.0.0.7", "web-1"]);
        assert_eq!(of("web-1.example.com", &["web-1"]), ["10.0.0.7", "web-1.example.com"]);
        assert_eq!(of("web-1", &["web-1"]), ["10.0.0.7"]);
        assert_eq!(of("", &[]), ["10.0.0.7"]);
    }

    #[test]
    fn the_host_of_a_node_s_own_name_is_configured_as_is_that_of_the_settings() {
        let mut spec = AppSpec::new("shop".parse().unwrap(), Language::Elixir);
        assert_eq!(configured(&spec, &None), [""; 0]);
        let value = EnvValue::Plain("shop@127.0.0.1".to_owned());
        spec.env = vec![EnvEntry { key: "RELEASE_NODE".to_owned(), value }];
        spec.distribution.host = Some("10.0.0.7".to_owned());
        assert_eq!(configured(&spec, &None), ["10.0.0.7", "127.0.0.1"]);
    }
}
