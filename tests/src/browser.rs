//! A real Chromium, driven through ChromeDriver, with an empty profile of its own.

use std::process::Command;
use std::time::Duration;

use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;
use tempfile::TempDir;
use xtask::command::find;
use xtask::setup::Tool;

use crate::ports;
use crate::process::Running;
use crate::wait::{Seen, within};

/// A browser window. Call [`Browser::close`] at the end of the test; dropping it only kills the programs.
#[derive(Debug)]
pub struct Browser {
    pub client: Client,
    driver: Running,
    profile: TempDir,
}

impl Browser {
    /// Opens a window of a usual desktop's size, in the light theme.
    pub async fn open() -> Self {
        let chromium = installed(Tool::Chromium);
        let driver = installed(Tool::ChromeDriver);
        let profile = tempfile::tempdir().expect("a temporary folder can be made");
        let port = ports::free(1);
        let mut command = Command::new(driver);
        command.arg(format!("--port={port}"));
        let driver = Running::start(&mut command, &profile.path().join("chromedriver.log"));

        let capabilities = capabilities(&chromium.display().to_string(), &profile.path().join("profile"));
        let address = format!("http://127.0.0.1:{port}");
        let client = within(Duration::from_secs(30), "a browser", || {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            builder.capabilities(capabilities.clone());
            let address = address.clone();
            async move {
                match builder.connect(&address).await {
                    Ok(client) => Seen::Done(client),
                    Err(error) => Seen::NotYet(error.to_string()),
                }
            }
        })
        .await;
        Self { client, driver, profile }
    }

    /// What the page wrote to the browser's console as errors, its own and the browser's (a refused script, a lost request).
    pub async fn console_errors(&self) -> Vec<String> {
        let request = BrowserLog;
        let entries = self.client.issue_cmd(request).await.expect("ChromeDriver keeps the console's log");
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries
            .iter()
            .filter(|entry| entry["level"] == "SEVERE")
            .map(|entry| entry["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    pub async fn close(self) {
        let Self { client, driver, profile } = self;
        let _ = client.close().await;
        drop(driver);
        drop(profile);
    }
}

fn installed(tool: Tool) -> std::path::PathBuf {
    let found = tool.programs().iter().find_map(|program| find(program));
    found.unwrap_or_else(|| {
        panic!("{tool} is not installed: cargo xtask setup (on Ubuntu: {})", tool.by_hand())
    })
}

fn capabilities(binary: &str, profile: &std::path::Path) -> serde_json::Map<String, serde_json::Value> {
    let profile = format!("--user-data-dir={}", profile.display());
    let arguments = [
        "--headless=new",
        // As root, as in most containers, its own sandbox cannot be set up; the pages are ours.
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--window-size=1280,900",
        &profile,
    ];
    let wanted = json!({
        "browserName": "chrome",
        "goog:chromeOptions": { "binary": binary, "args": arguments },
        "goog:loggingPrefs": { "browser": "ALL" },
    });
    wanted.as_object().cloned().unwrap_or_default()
}

/// ChromeDriver's own command for the console's log, which WebDriver proper lacks.
#[derive(Debug)]
struct BrowserLog;

impl fantoccini::wd::WebDriverCompatibleCommand for BrowserLog {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(json!({ "type": "browser" }).to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_page_is_read_and_its_errors_are_kept() {
        let browser = Browser::open().await;
        browser
            .client
            .goto("data:text/html,<title>here</title><script>console.error('oh no')</script>")
            .await
            .unwrap();
        assert_eq!(browser.client.title().await.unwrap(), "here");
        let errors = browser.console_errors().await;
        browser.close().await;
        assert!(errors.len() == 1 && errors[0].contains("oh no"), "{errors:?}");
    }
}
