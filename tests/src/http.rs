//! Plain HTTP, as a browser or a proxy asks.

use std::time::Duration;

use crate::wait::{Seen, eventually};

/// Chooses the provider of TLS for this process.
pub fn provider() {
    // Another test of this process may have been first; either way it is ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client that gives up soon, because tests ask again.
pub fn client() -> reqwest::Client {
    provider();
    reqwest::Client::builder()
        .timeout(Duration::from_secs(5))
        .no_proxy()
        .build()
        .expect("a client needs nothing")
}

/// The body of a successful answer, or what went wrong.
pub async fn get(url: &str) -> Result<String, String> {
    let answer = client().get(url).send().await.map_err(|error| format!("{url}: {error:?}"))?;
    let status = answer.status();
    let body = answer.text().await.map_err(|error| format!("{url}: {error:?}"))?;
    if status.is_success() { Ok(body) } else { Err(format!("{url}: {status}: {body}")) }
}

/// Waits until a sample application on this port says that it is this version.
pub async fn serves_version(port: u16, version: &str) {
    let url = format!("http://127.0.0.1:{port}/version");
    eventually(&format!("version {version} on port {port}"), || async {
        match get(&url).await {
            Ok(text) if text.trim() == version => Seen::Done(()),
            Ok(text) => Seen::NotYet(format!("version {}", text.trim())),
            Err(error) => Seen::NotYet(error),
        }
    })
    .await;
}
