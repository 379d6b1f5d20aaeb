//! The only place that speaks HTTP: requests under `/api/v1`, answers into types, refusals into [`ClientError`].
//!
//! A request that is refused because nobody is signed in ends the session here, wherever it came from.

mod error;
mod log;
mod pages;
mod value;
mod vm;

use std::cell::RefCell;
use std::rc::Rc;

use proto::problem::{Code, Problem};
use proto::users::{CSRF_HEADER, Me, SignIn};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortSignal, RequestInit, Response};
use yew::Callback;

pub use error::ClientError;
pub use pages::{Pages, use_pages};
pub use value::use_value;
pub use vm::use_vm_history;

const API: &str = "/api/v1";

/// Clones share the session.
#[derive(Clone)]
pub struct Client(Rc<Inner>);

struct Inner {
    csrf: RefCell<Option<String>>,
    session_ended: Callback<()>,
}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

type Answer<T> = Result<T, ClientError>;

impl Client {
    pub fn new(session_ended: Callback<()>) -> Self {
        Self(Rc::new(Inner { csrf: RefCell::new(None), session_ended }))
    }

    /// Who is signed in here, if anybody.
    pub async fn session(&self) -> Answer<Option<Me>> {
        let response = self.send("GET", "/session", None, None).await?;
        if response.status() == 204 {
            return Ok(None);
        }
        let me: Me = read(&text(&response).await?)?;
        self.remember(&me);
        Ok(Some(me))
    }

    pub async fn sign_in(&self, username: String, password: String) -> Answer<Me> {
        let me: Me = self.post("/session", &SignIn { username, password }).await?;
        self.remember(&me);
        Ok(me)
    }

    pub async fn sign_out(&self) -> Answer<()> {
        self.send("DELETE", "/session", None, None).await?;
        self.0.csrf.replace(None);
        Ok(())
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Answer<T> {
        read(&self.text("GET", path, None).await?)
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Answer<T> {
        let body = serde_json::to_string(body).map_err(ClientError::unreadable)?;
        read(&self.text("POST", path, Some(body)).await?)
    }

    /// Where what is asked for is shown by the page by itself, once it is so. Reading an answer for nothing costs every first
    /// visit the code that does it.
    pub async fn ask(&self, method: &str, path: &str, body: Option<&impl Serialize>) -> Answer<()> {
        let body = body.map(serde_json::to_string).transpose().map_err(ClientError::unreadable)?;
        self.ask_text(method, path, body).await
    }

    /// The same with what is JSON already.
    pub async fn ask_text(&self, method: &str, path: &str, body: Option<String>) -> Answer<()> {
        self.send(method, path, body, None).await.map(drop)
    }

    fn remember(&self, me: &Me) {
        self.0.csrf.replace(me.csrf_token.clone());
    }

    /// Apart from what it is read into: this is compiled once.
    async fn text(&self, method: &str, path: &str, body: Option<String>) -> Answer<String> {
        let response = self.send(method, path, body, None).await?;
        text(&response).await
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<String>,
        signal: Option<&AbortSignal>,
    ) -> Answer<Response> {
        let init = RequestInit::new();
        init.set_method(method);
        init.set_signal(signal);
        let headers = web_sys::Headers::new().map_err(|error| ClientError::unreachable(&error))?;
        let set =
            |name: &str, value: &str| headers.set(name, value).map_err(|it| ClientError::unreachable(&it));
        if let Some(body) = &body {
            set("content-type", "application/json")?;
            init.set_body(&JsValue::from_str(body));
        }
        if method != "GET"
            && let Some(token) = self.0.csrf.borrow().as_deref()
        {
            set(CSRF_HEADER, token)?;
        }
        init.set_headers(&headers);
        let window = web_sys::window().ok_or_else(ClientError::no_window)?;
        let asked = window.fetch_with_str_and_init(&format!("{API}{path}"), &init);
        let response = JsFuture::from(asked).await.map_err(|error| ClientError::unreachable(&error))?;
        let response: Response = response.unchecked_into();
        if response.ok() { Ok(response) } else { Err(self.refused(&response).await) }
    }

    async fn refused(&self, response: &Response) -> ClientError {
        let problem = text(response).await.and_then(|text| read::<Problem>(&text));
        let Ok(problem) = problem else {
            return ClientError::Status(response.status());
        };
        if problem.code == Code::NotSignedIn {
            self.0.session_ended.emit(());
        }
        ClientError::Refused(Box::new(problem))
    }
}

async fn text(response: &Response) -> Answer<String> {
    let text = response.text().map_err(|error| ClientError::unreachable(&error))?;
    let text = JsFuture::from(text).await.map_err(|error| ClientError::unreachable(&error))?;
    Ok(text.as_string().unwrap_or_default())
}

fn read<T: DeserializeOwned>(text: &str) -> Answer<T> {
    serde_json::from_str(text).map_err(ClientError::unreadable)
}
