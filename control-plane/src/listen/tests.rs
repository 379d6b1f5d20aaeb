//! TLS as a browser meets it, and what is said of files that cannot be used.

use std::fs;
use std::path::Path;

use axum::Extension;
use axum::routing::get;
use tempfile::TempDir;

use super::*;
use crate::error::chain;

/// A certificate for this machine with its key, below a folder.
struct Files {
    folder: TempDir,
    certificate_pem: String,
}

impl Files {
    fn new() -> Self {
        let made =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let files = Self { folder: tempfile::tempdir().unwrap(), certificate_pem: made.cert.pem() };
        fs::write(files.path("console.pem"), &files.certificate_pem).unwrap();
        fs::write(files.path("console.key"), made.signing_key.serialize_pem()).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tls(&self) -> TlsFiles {
        TlsFiles { certificate: self.path("console.pem"), key: self.path("console.key") }
    }
}

async fn refusal(files: TlsFiles) -> String {
    match Listener::tcp("127.0.0.1:0".parse().unwrap(), Some(&files)).await {
        Err(error) => chain(&error),
        Ok(_) => panic!("it listens with {files:?}"),
    }
}

#[tokio::test]
async fn a_browser_that_trusts_the_certificate_is_served_over_https_alone() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let files = Files::new();
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), Some(&files.tls())).await.unwrap();
    let address = listener.address().unwrap();
    let said = |Extension(peer): Extension<Peer>| async move { format!("{peer:?}") };
    let router = Router::new().route("/", get(said));
    let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(listener.serve(router, cancel.clone()));
    tasks.close();

    let trusted = reqwest::Certificate::from_pem(files.certificate_pem.as_bytes()).unwrap();
    let browser = reqwest::Client::builder().tls_certs_only([trusted]).build().unwrap();
    let answer = browser.get(format!("https://{address}/")).send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    let peer = answer.text().await.unwrap();
    assert!(peer.contains("127.0.0.1") && peer.contains("tls: true"), "{peer}");
    assert!(browser.get(format!("http://{address}/")).send().await.is_err(), "plain HTTP is not answered");
    let other = reqwest::Certificate::from_pem(Files::new().certificate_pem.as_bytes()).unwrap();
    let wary = reqwest::Client::builder().tls_certs_only([other]).build().unwrap();
    assert!(wary.get(format!("https://{address}/")).send().await.is_err(), "a stranger's certificate");

    drop((browser, wary));
    cancel.cancel();
    tasks.wait().await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let (files, other) = (Files::new(), Files::new());
    let absent = TlsFiles { certificate: files.path("absent.pem"), ..files.tls() };
    let said = refusal(absent).await;
    assert!(said.contains("absent.pem") && said.contains("must be PEM, readable"), "{said}");
    let absent = TlsFiles { key: files.path("absent.key"), ..files.tls() };
    assert!(refusal(absent).await.contains("absent.key"));

    let foreign = TlsFiles { key: other.path("console.key"), ..files.tls() };
    let said = refusal(foreign).await;
    assert!(said.contains("do not go together") && said.contains("console.pem"), "{said}");
    assert!(said.contains(&*other.path("console.key").to_string_lossy()), "{said}");

    let swapped = TlsFiles { certificate: files.tls().key, key: files.tls().certificate };
    assert!(refusal(swapped).await.contains("console.key holds no certificate"));
    fs::write(files.path("empty"), "").unwrap();
    let empty = TlsFiles { certificate: files.path("empty"), ..files.tls() };
    assert!(refusal(empty).await.contains("empty holds no certificate"));
    fs::write(files.path("console.key"), "not PEM").unwrap();
    assert!(refusal(files.tls()).await.contains("console.key"));
    assert!(Path::new(&other.path("console.pem")).exists());
}
