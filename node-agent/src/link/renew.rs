//! Has the certificate renewed at two thirds of its life, and as soon as possible where it has expired already.

use std::sync::Arc;
use std::time::Duration;

use proto::pb;
use proto::pb::agent_client::AgentClient;
use rcgen::KeyPair;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::backoff;
use super::dial::{LinkError, dial};
use super::enrol::request;
use super::identity::{Identity, IdentityError};
use crate::clock;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The wall clock may be set and a host may sleep: the time is looked at again this often.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// Between two tries there is no hurry: a third of the life is left.
const SLOWER: u32 = 8;

#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot make a request for a certificate")]
    Request(#[from] rcgen::Error),
    #[error("the new certificate was not stored")]
    Store(#[from] tokio::task::JoinError),
}

/// Runs as long as the link. Whoever dials reads the identity in force from the same watch.
pub(super) async fn keep(identity: watch::Sender<Arc<Identity>>, cancel: CancellationToken) {
    let mut failures = 0;
    loop {
        let current = Arc::clone(&identity.borrow());
        let left = current.validity.renew_at().saturating_sub(clock::unix_ms());
        let wait = match left {
            0 if failures == 0 => Duration::ZERO,
            0 => backoff::wait(failures, rand::random()) * slower(&current),
            left => Duration::from_millis(left).min(LOOK_AGAIN),
        };
        tokio::select! {
            biased; // stopping comes before new work
            () = cancel.cancelled() => return,
            () = sleep(wait) => {}
        }
        if current.validity.renew_at() > clock::unix_ms() {
            continue;
        }
        let renewed = tokio::select! {
            biased; // stopping comes before new work
            () = cancel.cancelled() => return,
            renewed = renew(&current) => renewed,
        };
        match renewed {
            Ok(renewed) => {
                tracing::info!("this host's certificate was renewed");
                identity.send_replace(Arc::new(renewed));
                failures = 0;
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot renew this host's certificate"
                );
            }
        }
    }
}

fn slower(identity: &Identity) -> u32 {
    if identity.validity.ends > clock::unix_ms() + 3_600_000 { SLOWER } else { 1 }
}

async fn renew(identity: &Identity) -> Result<Identity, RenewError> {
    let csr_pem = request(&KeyPair::from_pem(&identity.key_pem)?)?;
    let wire = dial(&identity.control_plane, Arc::clone(&identity.tls)).await?;
    let answer =
        timeout(ANSWER_TIMEOUT, AgentClient::new(wire.channel.clone()).renew(pb::RenewRequest { csr_pem }))
            .await
            .map_err(|_| LinkError::TimedOut { address: identity.control_plane.clone() })?
            .map_err(|status| wire.explain(status))?
            .into_inner();
    let renewed = identity.with_certificate(answer.certificate_pem, answer.ca_pem)?;
    tokio::task::spawn_blocking(move || renewed.store().map(|()| renewed)).await?.map_err(Into::into)
}
