//! The HTTP API as the commands see it: through the local socket or a URL, answers read into the shared types.

use std::path::Path;
use std::time::Duration;

use proto::ids::{AppName, NodeName};
use proto::page::Page;
use proto::problem::{Code, Problem};
use reqwest::{Method, RequestBuilder, Response};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CliError, Connection};
use crate::home::Home;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// For a whole answer that is no stream. The slowest waits for a rollout to begin, a few seconds.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);

pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    /// For messages.
    what: String,
    hint: &'static str,
    token: Option<secrecy::SecretString>,
}

impl Client {
    pub(super) fn open(connection: &Connection) -> Result<Self, CliError> {
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .user_agent(concat!("deployex/", env!("CARGO_PKG_VERSION")));
        match &connection.url {
            Some(url) => Self::over_network(builder, url, connection),
            None => Self::over_socket(builder, connection.data_dir()),
        }
    }

    fn over_network(
        builder: reqwest::ClientBuilder,
        url: &str,
        connection: &Connection,
    ) -> Result<Self, CliError> {
        let parsed = reqwest::Url::parse(url).ok().filter(|it| matches!(it.scheme(), "http" | "https"));
        if parsed.is_none() {
            let message = format!("--url is an address such as https://deployex.example.com, not {url:?}");
            return Err(CliError::WrongUse(message));
        }
        Ok(Self {
            http: built(builder)?,
            base: url.trim_end_matches('/').to_owned(),
            what: url.to_owned(),
            hint: "is the address right, and does the control plane run there?",
            token: connection.token.clone(),
        })
    }

    fn over_socket(builder: reqwest::ClientBuilder, data_dir: &Path) -> Result<Self, CliError> {
        let path = Home::socket_in(data_dir);
        Ok(Self {
            http: built(builder.unix_socket(path.clone()).no_proxy())?,
            base: "http://localhost".to_owned(),
            what: format!("the control plane at {}", path.display()),
            hint: "does `deployex serve` run on this host? --data-dir names another data folder, --url another host",
            token: None,
        })
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.answer(self.request(Method::GET, path).timeout(ANSWER_WITHIN)).await
    }

    /// `None`: there is no such thing, or no more.
    pub(super) async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, CliError> {
        let request = self.request(Method::GET, path).timeout(ANSWER_WITHIN);
        let response = request.send().await.map_err(|error| self.lost(error))?;
        if response.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.read(self.accepted(response).await?).await.map(Some)
    }

    /// Every item of a list, page after page.
    pub(super) async fn get_all<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, CliError> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        let separator = if path.contains('?') { '&' } else { '?' };
        loop {
            let page: Page<T> = self.get(&format!("{path}{separator}limit=500{cursor}")).await?;
            items.extend(page.items);
            match page.next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(items),
            }
        }
    }

    /// That a list of what is said of them is empty because nothing is, and not because a name is mistyped.
    pub(super) async fn must_know(
        &self,
        app: Option<&AppName>,
        node: Option<&NodeName>,
    ) -> Result<(), CliError> {
        if let Some(app) = app {
            let _: serde::de::IgnoredAny = self.get(&format!("/applications/{app}")).await?;
        }
        if let Some(node) = node {
            let _: serde::de::IgnoredAny = self.get(&format!("/nodes/{node}")).await?;
        }
        Ok(())
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        self.answer(self.request(Method::POST, path).json(body).timeout(ANSWER_WITHIN)).await
    }

    /// Of what takes its time.
    pub(super) async fn post_within<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<T, CliError> {
        self.answer(self.request(Method::POST, path).json(body).timeout(ANSWER_WITHIN + within)).await
    }

    pub(super) async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        self.answer(self.request(Method::PATCH, path).json(body).timeout(ANSWER_WITHIN)).await
    }

    pub(super) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.answer(self.request(Method::DELETE, path).timeout(ANSWER_WITHIN)).await
    }

    /// Where the answer has no body.
    pub(super) async fn delete_quietly(&self, path: &str) -> Result<(), CliError> {
        self.send(self.request(Method::DELETE, path).timeout(ANSWER_WITHIN)).await.map(drop)
    }

    /// An answer that is read as it comes.
    pub(super) async fn stream(&self, path: &str) -> Result<Response, CliError> {
        self.send(self.request(Method::GET, path)).await
    }

    pub(super) fn lost(&self, source: reqwest::Error) -> CliError {
        CliError::NotReachable { what: self.what.clone(), hint: self.hint, source }
    }

    pub(super) fn unreadable(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CliError {
        CliError::Unreadable { what: self.what.clone(), source: source.into() }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}/api/v1{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        }
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, CliError> {
        self.read(self.send(request).await?).await
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, CliError> {
        let body = response.bytes().await.map_err(|error| self.lost(error))?;
        serde_json::from_slice(&body).map_err(|error| self.unreadable(error))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, CliError> {
        let response = request.send().await.map_err(|error| self.lost(error))?;
        self.accepted(response).await
    }

    async fn accepted(&self, response: Response) -> Result<Response, CliError> {
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.map_err(|error| self.lost(error))?;
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(refusal(&problem, self.token.is_some())),
            Err(_) => Err(self.unreadable(format!("it answered {status} without a reason"))),
        }
    }
}

fn built(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, CliError> {
    builder.build().map_err(|source| CliError::NotReachable {
        what: "the control plane".to_owned(),
        hint: "the connection could not be set up",
        source,
    })
}

fn refusal(problem: &Problem, has_token: bool) -> CliError {
    let text = match problem.detail.is_empty() {
        true => problem.title.clone(),
        false => problem.detail.clone(),
    };
    match problem.code {
        Code::NotSignedIn if !has_token => CliError::NotAllowed(format!(
            "{text} (set DEPLOYEX_TOKEN; `deployex token create` on the control plane's host makes one)"
        )),
        _ if matches!(problem.status, 401 | 403) => CliError::NotAllowed(text),
        Code::InvalidInput | Code::MalformedRequest => CliError::WrongUse(text),
        Code::TimedOut => CliError::TimedOut(text),
        Code::Internal => CliError::Refused(format!("{text} (id {})", problem.instance)),
        _ => CliError::Refused(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_decides_the_exit_status() {
        for (code, status) in [
            (Code::NotFound, 1),
            (Code::InvalidInput, 2),
            (Code::NotSignedIn, 4),
            (Code::NotAllowed, 4),
            (Code::TimedOut, 5),
            (Code::Internal, 1),
        ] {
            assert_eq!(refusal(&Problem::new(code, "why"), true).status(), status, "{code}");
        }
    }

    #[test]
    fn who_has_no_token_is_told_where_one_comes_from() {
        let error = refusal(&Problem::new(Code::NotSignedIn, "sign in"), false);
        assert!(error.to_string().contains("deployex token create"));
    }
}
