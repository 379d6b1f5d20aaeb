//! Stands before every call: who may make it, by the certificate of its connection and what is known of it now.
//!
//! A call that is added later is closed to strangers without anybody thinking of it. Refusals say what to do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body_util::Limited;
use hyper::http::{Request, Response};
use proto::ids::NodeId;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::listener::Peer;
use super::pki::Identity;
use super::registry::{Registry, Standing};
use crate::clock::{Clock, Time};

const ENROL: &str = "/deployex.agent.v1.Agent/Enrol";
const RENEW: &str = "/deployex.agent.v1.Agent/Renew";

/// A stranger's request: a token, a CSR and some labels.
const STRANGER_BYTES: usize = 64 << 10;

/// Put into a request's extensions once it was let in: which node calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller(pub(super) NodeId);

#[derive(Clone)]
pub(super) struct Gate {
    pub(super) registry: Arc<dyn Registry>,
    pub(super) clock: Clock,
}

impl Gate {
    async fn admit(&self, path: &str, peer: Option<&Peer>) -> Result<Option<Caller>, Status> {
        let identity = peer.and_then(|peer| peer.identity.as_ref());
        let Some(identity) = may_call(path, identity, self.clock.wall())? else { return Ok(None) };
        let standing = self.registry.standing(identity.node, &identity.serial).await;
        match standing {
            Ok(Standing::Good) => Ok(Some(Caller(identity.node))),
            Ok(Standing::Revoked) => Err(Status::permission_denied(
                "this node was removed from the fleet: enrol the host anew if it is to come back",
            )),
            Ok(Standing::Unknown) => Err(Status::permission_denied(
                "this node's certificate is not known here: enrol the host anew",
            )),
            Err(error) => {
                tracing::error!(node = %identity.node, error = &*error, "cannot look up a certificate");
                Err(Status::unavailable("the control plane cannot read its database"))
            }
        }
    }
}

/// `Ok(None)`: anybody may. Says nothing of revocation.
fn may_call<'a>(
    path: &str,
    identity: Option<&'a Identity>,
    now: Time,
) -> Result<Option<&'a Identity>, Status> {
    if path == ENROL {
        return Ok(None);
    }
    let Some(identity) = identity else {
        return Err(Status::unauthenticated("no certificate was shown: enrol this host first"));
    };
    if identity.not_after < now && path != RENEW {
        return Err(Status::unauthenticated(
            "this node's certificate has expired: it has to be renewed first",
        ));
    }
    Ok(Some(identity))
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.clone(), inner }
    }
}

#[derive(Clone)]
pub(super) struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone takes our place: this one was made ready.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let gate = self.gate.clone();
        Box::pin(async move {
            let peer = request.extensions().get::<Peer>().cloned();
            match gate.admit(request.uri().path(), peer.as_ref()).await {
                Ok(Some(caller)) => {
                    let mut request = request;
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Ok(None) => {
                    inner.call(request.map(|body| Body::new(Limited::new(body, STRANGER_BYTES)))).await
                }
                Err(refused) => {
                    tracing::debug!(peer = ?peer.map(|it| it.address), reason = refused.message(), "refused a call");
                    Ok(refused.into_http())
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    const NOW: Time = Time(1_800_000_000_000);
    const SESSION: &str = "/deployex.agent.v1.Agent/Session";

    fn identity(not_after: Time) -> Identity {
        Identity { node: NodeId(uuid::Uuid::now_v7()), serial: "40".repeat(16), not_after }
    }

    #[test]
    fn a_stranger_may_only_enrol() {
        assert!(may_call(ENROL, None, NOW).is_ok());
        for path in [RENEW, SESSION, "/deployex.agent.v1.Agent/Later", ""] {
            assert_eq!(may_call(path, None, NOW).unwrap_err().code(), Code::Unauthenticated);
        }
    }

    #[test]
    fn an_expired_node_may_only_renew() {
        let expired = identity(Time(NOW.0 - 1));
        assert!(may_call(RENEW, Some(&expired), NOW).unwrap().is_some());
        assert!(may_call(SESSION, Some(&expired), NOW).unwrap_err().message().contains("expired"));
        assert!(may_call(SESSION, Some(&identity(NOW)), NOW).unwrap().is_some());
    }

    #[tokio::test]
    async fn a_certificate_ends_by_the_clock_that_others_have_too() {
        let database = crate::db::tests::fixture::TestDb::sqlite().await;
        // The host's clock was set after the start, as without a battery.
        let clock = Clock::start().started_in_1970();
        let gate = Gate { registry: Arc::new(database.db.clone()), clock };
        let identity = Some(identity(Time(clock.wall().0 - 1)));
        let peer = Peer { address: ([127, 0, 0, 1], 1).into(), identity };
        let refused = gate.admit(SESSION, Some(&peer)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    }
}
