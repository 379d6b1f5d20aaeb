//! Certificates for TLS between Erlang nodes (`distribution: { tls: managed }`), asked of the control plane.

use async_trait::async_trait;
use proto::pb;
use tokio::time::timeout;
use tonic::Code;

use super::bulk::{ANSWER_TIMEOUT, Bulk, once_more};
use super::dial::LinkError;

/// Who signs them: the control plane, and another in tests.
#[async_trait]
pub trait Certify: Send + Sync {
    /// # Errors
    /// Where the control plane is not reached, or does not sign: why.
    async fn certify(&self, request: pb::CertifyPeerRequest) -> Result<pb::CertifyPeerResponse, LinkError>;
}

#[async_trait]
impl Certify for Bulk {
    async fn certify(&self, request: pb::CertifyPeerRequest) -> Result<pb::CertifyPeerResponse, LinkError> {
        once_more(|| self.certify_once(&request)).await
    }
}

impl Bulk {
    async fn certify_once(
        &self,
        request: &pb::CertifyPeerRequest,
    ) -> Result<pb::CertifyPeerResponse, LinkError> {
        let mut client = self.client().await?;
        let answer = match timeout(ANSWER_TIMEOUT, client.certify_peer(request.clone())).await {
            Ok(Err(status)) if status.code() == Code::Unimplemented => {
                return Err(LinkError::Refused(
                    "it is older than this agent and signs no certificates for Erlang nodes; upgrade it"
                        .to_owned(),
                ));
            }
            answer => self.heard(answer).await?,
        };
        Ok(answer.into_inner())
    }
}
