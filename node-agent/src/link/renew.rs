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
}

/// A certificate that is due again as soon as it comes is so by a clock that is wrong. It is not asked for more often than this.
const AFTER_RENEWAL: Duration = Duration::from_hours(1);

/// Runs as long as the link. Whoever dials reads the identity in force from the same watch.
pub(super) async fn keep(identity: watch::Sender<Arc<Identity>>, cancel: CancellationToken) {
    let mut failures = 0;
    let mut not_before = Duration::ZERO;
    let mut unstored: Option<Arc<Identity>> = None;
    loop {
        let current = Arc::clone(&identity.borrow());
        let left = current.validity.renew_at().saturating_sub(clock::unix_ms());
        let wait = wait(left, not_before, unstored.is_some());
        tokio::select! {
            biased; // stopping comes before new work
            () = cancel.cancelled() => return,
            () = sleep(wait) => {}
        }
        not_before = not_before.saturating_sub(wait);
        if let Some(kept) = unstored.take() {
            unstored = store(kept).await;
        }
        if current.validity.renew_at() > clock::unix_ms() || !not_before.is_zero() {
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
                let renewed = Arc::new(renewed);
                // In force also where it cannot be stored: the old one still serves to renew after a restart.
                unstored = store(Arc::clone(&renewed)).await;
                failures = 0;
                not_before = after_renewal(renewed.validity.renew_at(), clock::unix_ms());
                identity.send_replace(renewed);
            }
            Err(error) => {
                failures += 1;
                not_before = backoff::wait(failures, rand::random()) * slower(&current);
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot renew this host's certificate"
                );
            }
        }
    }
}

/// How long no other is asked for. One that lives for seconds is due in seconds, and that is no fault.
fn after_renewal(renew_at: u64, now: u64) -> Duration {
    if renew_at > now { Duration::ZERO } else { AFTER_RENEWAL }
}

/// How long nothing is to be done. `left`: milliseconds until the certificate is due.
fn wait(left: u64, not_before: Duration, unstored: bool) -> Duration {
    let wait = Duration::from_millis(left).max(not_before);
    if left > 0 || unstored { wait.min(LOOK_AGAIN) } else { wait }
}

/// What could not be stored. It is tried again.
async fn store(identity: Arc<Identity>) -> Option<Arc<Identity>> {
    let kept = Arc::clone(&identity);
    match tokio::task::spawn_blocking(move || kept.store()).await {
        // A thread that panicked does so each time.
        Ok(Ok(())) | Err(_) => None,
        Ok(Err(error)) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the renewed certificate is used and cannot be stored; that is tried again"
            );
            Some(identity)
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
    Ok(identity.with_certificate(answer.certificate_pem, answer.ca_pem)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_makes_every_certificate_due_asks_for_one_an_hour() {
        assert_eq!(wait(0, Duration::ZERO, false), Duration::ZERO, "due, for the first time");
        assert_eq!(after_renewal(999, 1_000), AFTER_RENEWAL, "due as it comes");
        assert_eq!(after_renewal(1_001, 1_000), Duration::ZERO);
        assert_eq!(wait(0, AFTER_RENEWAL, false), AFTER_RENEWAL, "due again at once");
        assert_eq!(wait(86_400_000, Duration::ZERO, false), LOOK_AGAIN, "the clock may be set meanwhile");
        assert_eq!(wait(1_000, Duration::ZERO, false), Duration::from_secs(1));
        assert_eq!(wait(0, AFTER_RENEWAL, true), LOOK_AGAIN, "what is not stored is tried again");
    }
}
