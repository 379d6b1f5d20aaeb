//! That the Erlang node of a replica answers and an OTP application is started there, asked over the connection that the agent
//! has to it.

use std::time::Duration;

use tokio::sync::watch;

use super::super::acts::chain;
use super::super::slot::node::Said;
use super::Failure;
use crate::beam::AskError;
use crate::beam::applications::is_started;
use crate::dist::connection::CallError;
use crate::dist::link::{Kind, Standing};

/// How it stands with the node of one process.
#[derive(Clone, Debug)]
pub(in crate::supervisor) struct NodeEnd {
    pub(in crate::supervisor) standing: watch::Receiver<Standing>,
    pub(in crate::supervisor) said: watch::Receiver<Said>,
}

pub(super) async fn ask(node: Option<&NodeEnd>, application: &str, within: Duration) -> Result<(), Failure> {
    let Some(NodeEnd { standing, said }) = node else { return Err(unreached("has no Erlang node", true)) };
    let now = standing.borrow().clone();
    let connection = match now {
        Standing::Connected { connection, .. } => connection.for_another(),
        Standing::Without(reason) => {
            let why = format!("could not be asked: {}", chain(&reason));
            return Err(unreached(why, is_blameless(reason.kind())));
        }
        Standing::Dialling => return Err(not_dialled(&said.borrow(), standing.has_changed().is_err())),
    };
    match is_started(&connection, application, within).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::of("is not started")),
        Err(AskError::Call(CallError::TimedOut(_))) => Err(Failure::late(within)),
        Err(error) => Err(Failure::of(format!("could not be asked: {}", chain(&error)))),
    }
}

/// `over`: nobody will ever dial it.
fn not_dialled(said: &Said, over: bool) -> Failure {
    let because = said.node.as_ref().map(|it| it.because.as_str()).filter(|it| !it.is_empty());
    match because {
        Some(because) => unreached(format!("could not be asked: {because}"), true),
        None if over => unreached("is in a virtual machine without a node name", true),
        None => unreached("is not connected to yet", true),
    }
}

fn unreached(outcome: impl Into<String>, blameless: bool) -> Failure {
    Failure { nobody_there: true, blameless, ..Failure::of(outcome) }
}

/// Whether another process in its place would not be reached either: its name server, its cookie, its certificate or whoever
/// has our name is to blame.
fn is_blameless(kind: Kind) -> bool {
    match kind {
        Kind::Epmd | Kind::Tls | Kind::Cookie | Kind::NameClash | Kind::Protocol => true,
        Kind::Refused | Kind::Silent | Kind::Closed => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::pb;

    use super::*;
    use crate::dist::connection::Lost;
    use crate::dist::dial::DialError;
    use crate::dist::handshake::HandshakeError;
    use crate::dist::link::Reason;

    async fn outcome(standing: Standing, because: &str) -> Failure {
        let node = Some(pb::ErlangNode { because: because.to_owned(), ..Default::default() });
        let (_said, said) = watch::channel(Said { node, ..Said::default() });
        let (_standing, standing) = watch::channel(standing);
        ask(Some(&NodeEnd { standing, said }), "shop", Duration::from_secs(1)).await.unwrap_err()
    }

    #[tokio::test]
    async fn who_cannot_be_reached_is_not_ready_and_ended_for_it_only_where_that_may_help() {
        let cookie = DialError::Handshake(HandshakeError::CookieRefused);
        let cookie = outcome(Standing::Without(Reason::NotReached(Arc::new(cookie))), "").await;
        assert!(cookie.blameless && cookie.nobody_there && cookie.outcome.contains("cookie"), "{cookie:?}");
        let silent = Lost::Silent(Duration::from_mins(1));
        let silent = outcome(Standing::Without(Reason::Lost(silent)), "").await;
        assert!(!silent.blameless && silent.outcome.contains("silent for 60 s"), "{silent:?}");
        let early = outcome(Standing::Dialling, "").await;
        assert!(early.blameless && early.outcome == "is not connected to yet", "{early:?}");
        let tls = outcome(Standing::Dialling, "it talks TLS").await;
        assert!(tls.blameless && tls.outcome.ends_with(": it talks TLS"), "{tls:?}");
        assert!(ask(None, "shop", Duration::from_secs(1)).await.unwrap_err().blameless);
        assert!(not_dialled(&Said::default(), true).outcome.contains("without a node name"));
    }
}
