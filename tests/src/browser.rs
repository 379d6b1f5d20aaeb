//! A real Chromium, driven through ChromeDriver, with an empty profile of its own.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use rustix::process::{Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use xtask::command::find;
use xtask::processes;
use xtask::setup::Tool;

use crate::ports;
use crate::process::Running;
use crate::wait::{Seen, within};

/// For a page, on a loaded machine.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// Who the control planes of the tests begin with: name and password.
pub const ADMIN: (&str, &str) = ("admin", "deployex");

/// A browser window. Call [`Browser::close`] at the end of the test; dropping it, as a test that fails does, kills the programs.
#[derive(Debug)]
pub struct Browser {
    pub client: Client,
    /// Before its profile is removed, and after the driver that would miss it.
    driver: Running,
    chromium: Chromium,
    profile: TempDir,
}

/// ChromeDriver's child, which goes on when that is killed: whatever was told of its profile.
#[derive(Debug)]
struct Chromium {
    profile: PathBuf,
}

impl Drop for Chromium {
    fn drop(&mut self) {
        for pid in processes::under(&self.profile) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
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
        let chromium = Chromium { profile: profile.path().to_owned() };
        Self { client, driver, chromium, profile }
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

    /// Waits until the page has what the selector means.
    pub async fn there(&self, selector: &str) {
        within(PATIENCE, selector, || async {
            match self.client.find(Locator::Css(selector)).await {
                Ok(_) => Seen::Done(()),
                Err(_) => Seen::NotYet(self.text("body").await),
            }
        })
        .await;
    }

    /// Waits until these words are to be read on the page.
    pub async fn reads(&self, words: &str) {
        within(PATIENCE, words, || async {
            let text = self.text("body").await;
            if text.contains(words) { Seen::Done(()) } else { Seen::NotYet(text) }
        })
        .await;
    }

    /// Waits until the page has nothing that the selector means.
    pub async fn gone(&self, selector: &str) {
        within(PATIENCE, &format!("no {selector}"), || async {
            match self.is_absent(selector).await {
                true => Seen::Done(()),
                false => Seen::NotYet(self.text("body").await),
            }
        })
        .await;
    }

    /// Pictures of the page, in each theme, wide and narrow, into the folder that the environment's `PICTURES` names, so that a
    /// person can look.
    pub async fn pictured(&self, name: &str) {
        let Some(folder) = std::env::var_os("PICTURES") else { return };
        for theme in ["light", "dark"] {
            let script = format!("document.documentElement.dataset.theme = '{theme}'");
            self.client.execute(&script, Vec::new()).await.expect("a theme");
            for width in [1_440, 390] {
                // As high as it is, so that all of it is seen.
                self.client.set_window_size(width, 2_400).await.expect("a window has a size");
                let picture = self.client.screenshot().await.expect("a picture");
                let file = PathBuf::from(&folder).join(format!("{name}-{theme}-{width}.png"));
                std::fs::write(file, picture).expect("it is kept");
            }
        }
    }

    /// Where it is on the page: the left upper corner, in CSS pixels.
    pub async fn place(&self, selector: &str) -> (f64, f64) {
        let element = self.client.find(Locator::Css(selector)).await.expect("it is there");
        let (x, y, ..) = element.rectangle().await.expect("it has a place");
        (x, y)
    }

    pub async fn is_absent(&self, selector: &str) -> bool {
        self.client.find_all(Locator::Css(selector)).await.expect("the page can be asked").is_empty()
    }

    /// What is to be read there; empty where there is nothing.
    pub async fn text(&self, selector: &str) -> String {
        match self.client.find(Locator::Css(selector)).await {
            Ok(element) => element.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    pub async fn click(&self, selector: &str) {
        self.there(selector).await;
        let element = self.client.find(Locator::Css(selector)).await.expect("it was there");
        element.click().await.unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    /// On any page of the console.
    pub async fn sign_in(&self, (name, password): (&str, &str)) {
        self.there("form#sign-in").await;
        for (field, value) in [("username", name), ("password", password)] {
            let selector = format!("form#sign-in input[name={field}]");
            let field = self.client.find(Locator::Css(&selector)).await.expect("the form has it");
            field.clear().await.expect("it can be emptied");
            field.send_keys(value).await.expect("it takes text");
        }
        self.click("form#sign-in button[type=submit]").await;
    }

    pub async fn close(self) {
        let Self { client, driver, chromium, profile } = self;
        let _ = client.close().await;
        drop(driver);
        drop(chromium);
        drop(profile);
    }
}

fn installed(tool: Tool) -> PathBuf {
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
    async fn a_test_that_fails_leaves_no_browser_behind() {
        let browser = Browser::open().await;
        let profile = browser.profile.path().to_owned();
        assert!(!processes::under(&profile).is_empty());
        drop(browser);
        within(PATIENCE, "its end", || async {
            match processes::under(&profile).as_slice() {
                [] => Seen::Done(()),
                left => Seen::NotYet(format!("{left:?}")),
            }
        })
        .await;
    }

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
