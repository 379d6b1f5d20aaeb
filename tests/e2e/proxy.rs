//! The console behind a real NGINX with TLS, set up as the example that we give people, and the demo, which nobody may put
//! behind one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use proto::live::{Ask, Message, News, Topic};
use proto::problem::{Code, Problem};
use proto::state::Role;
use proto::users::{CSRF_HEADER, Me, NewToken, SignIn};
use reqwest::{Client, Method, Response, StatusCode};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tests::nginx::Nginx;
use tests::ports;
use tests::programs::{ControlPlane, Setup};
use tests::release::Bucket;
use tests::wait::{Seen, eventually};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const EXAMPLE: &str = include_str!("../../control-plane/nginx.example.conf");
/// As the example calls it.
const NAME: &str = "deployex.example.com";
const NO_APPLICATION: &str = "  []\n";

/// A control plane behind NGINX.
struct Front {
    nginx: Nginx,
    /// Where NGINX listens without TLS.
    plain: u16,
    certificate: String,
    control_plane: ControlPlane,
    _bucket: Bucket,
    _tls: TempDir,
}

/// The example, with our ports and files in the place of its own.
fn example(control_plane: &ControlPlane, plain: u16, tls: &TempDir) -> String {
    let in_place_of = [
        ("server 127.0.0.1:5001;", format!("server {};", control_plane.console_address())),
        ("listen 80;", format!("listen 127.0.0.1:{plain};")),
        ("listen 443 ssl;", "listen 127.0.0.1:{port} ssl;".to_owned()),
        ("/etc/deployex/tls/console.pem", tls.path().join("console.pem").display().to_string()),
        ("/etc/deployex/tls/console.key", tls.path().join("console.key").display().to_string()),
    ];
    in_place_of.iter().fold(EXAMPLE.to_owned(), |text, (theirs, ours)| {
        assert!(text.contains(theirs), "the example has no {theirs:?} any more");
        text.replace(theirs, ours)
    })
}

impl Front {
    async fn of(setup: Setup<'_>) -> Self {
        let bucket = Bucket::new();
        let control_plane = ControlPlane::start_with(&bucket, NO_APPLICATION, setup).await;
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let tls = tempfile::tempdir().unwrap();
        std::fs::write(tls.path().join("console.pem"), made.cert.pem()).unwrap();
        std::fs::write(tls.path().join("console.key"), made.signing_key.serialize_pem()).unwrap();
        let plain = ports::free(1);
        let nginx = Nginx::start(&example(&control_plane, plain, &tls)).await;
        Self { nginx, plain, certificate: made.cert.pem(), control_plane, _bucket: bucket, _tls: tls }
    }

    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.nginx.port()).into()
    }

    /// What a browser shows in its address bar, without the path.
    fn origin(&self) -> String {
        format!("https://{NAME}:{}", self.nginx.port())
    }

    /// A client on another address of this machine.
    fn client(&self, from: &str) -> Client {
        tests::http::provider();
        let certificate = reqwest::Certificate::from_pem(self.certificate.as_bytes()).unwrap();
        Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .resolve(NAME, self.address())
            .tls_certs_only([certificate])
            .local_address(from.parse::<IpAddr>().unwrap())
            .build()
            .unwrap()
    }

    async fn sign_in(&self, client: &Client, username: &str, password: &str) -> Response {
        let wish = SignIn { username: username.to_owned(), password: password.to_owned() };
        client
            .post(format!("{}/api/v1/session", self.origin()))
            .header("x-forwarded-for", "203.0.113.9")
            .header("forwarded", "for=203.0.113.9")
            .json(&wish)
            .send()
            .await
            .unwrap()
    }

    /// The line of the log about a refused sign-in of this name.
    async fn refused(&self, username: &str) -> String {
        eventually(&format!("the refusal of {username} in the log"), || async {
            let output = self.control_plane.output();
            let line = output.lines().find(|it| it.contains("sign-in was refused") && it.contains(username));
            line.map_or_else(|| Seen::NotYet(output.clone()), |line| Seen::Done(line.to_owned()))
        })
        .await
    }
}

/// The password that a control plane prints at its very first start.
async fn first_password(control_plane: &ControlPlane) -> String {
    eventually("the first password", || async {
        let output = control_plane.output();
        let after = output.split_once("admin with the password ").map(|(_, after)| after.to_owned());
        after.map_or_else(
            || Seen::NotYet(output.clone()),
            |after| Seen::Done(after.split_whitespace().next().unwrap_or_default().to_owned()),
        )
    })
    .await
}

const FOR_REAL: Setup<'_> = Setup {
    engine: tests::database::Engine::Sqlite,
    settings: "",
    for_real: true,
    data_dir: None,
    auto_apply: false,
    host: None,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_signs_in_changes_and_watches_through_nginx_with_a_cookie_that_only_https_carries() {
    let front = Front::of(FOR_REAL).await;
    let client = front.client("127.0.0.1");

    let unencrypted = format!("http://127.0.0.1:{}/nodes", front.plain);
    let redirected = client.get(unencrypted).header("host", NAME).send().await.unwrap();
    assert_eq!(redirected.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(redirected.headers()["location"], format!("https://{NAME}/nodes"));

    let password = first_password(&front.control_plane).await;
    let signed_in = front.sign_in(&client, "admin", &password).await;
    assert_eq!(signed_in.status(), StatusCode::OK);
    assert!(signed_in.headers().contains_key("strict-transport-security"));
    let cookie = signed_in.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.starts_with("__Host-deployex=") && cookie.ends_with("; Secure"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let csrf = signed_in.json::<Me>().await.unwrap().csrf_token.unwrap();

    for (origin, status) in [(front.origin(), 201), ("https://elsewhere.example".to_owned(), 403)] {
        let wish = NewToken { name: format!("ci {status}"), role: Role::Viewer, lifetime_ms: None };
        let request = client.request(Method::POST, format!("{}/api/v1/tokens", front.origin()));
        let request = request.header("cookie", &cookie).header(CSRF_HEADER, &csrf).header("origin", &origin);
        assert_eq!(request.json(&wish).send().await.unwrap().status().as_u16(), status, "{origin}");
    }

    let mut live = front.live(&cookie, &front.origin()).await.unwrap();
    let ask = Ask::Subscribe { topics: vec![Topic::Fleet, Topic::Events] };
    live.send(serde_json::to_string(&ask).unwrap().into()).await.unwrap();
    let fleet = eventually_says(&mut live, |news| matches!(news, News::Fleet(_))).await;
    assert!(matches!(fleet, News::Fleet(fleet) if fleet.applications.is_empty()));
    // What happens afterwards comes by itself.
    front.control_plane.ask::<serde_json::Value>(&["node", "list"]).unwrap();
    let foreign = front.live(&cookie, "https://elsewhere.example").await;
    assert!(foreign.is_err(), "a page of another site opened the console's WebSocket");
}

type Live = tokio_tungstenite::WebSocketStream<tokio_rustls::client::TlsStream<TcpStream>>;

impl Front {
    /// The console's WebSocket, as a page of this origin opens it.
    async fn live(&self, cookie: &str, origin: &str) -> Result<Live, tokio_tungstenite::tungstenite::Error> {
        let mut roots = RootCertStore::empty();
        roots
            .add(rustls::pki_types::CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap())
            .unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(self.address()).await.unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let mut request =
            format!("wss://{NAME}:{}/api/v1/live", self.nginx.port()).into_client_request().unwrap();
        request.headers_mut().insert("cookie", cookie.parse().unwrap());
        request.headers_mut().insert("origin", origin.parse().unwrap());
        tokio_tungstenite::client_async(request, stream).await.map(|(live, _)| live)
    }
}

async fn eventually_says(live: &mut Live, is_it: impl Fn(&News) -> bool) -> News {
    let found = async {
        loop {
            let frame = live.next().await.expect("it stays open").expect("it stays whole");
            let Ok(text) = frame.to_text() else { continue };
            if let Ok(Message { news, .. }) = serde_json::from_str(text)
                && is_it(&news)
            {
                return news;
            }
        }
    };
    tokio::time::timeout(tests::wait::USUAL, found).await.expect("the console is told")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_address_is_what_a_trusted_proxy_says_and_nobody_else() {
    // Of this machine's addresses, one is the proxy's.
    let front = Front::of(Setup { settings: "trusted_proxies: [127.0.0.1/32]\n", ..FOR_REAL }).await;

    // What the client says of itself, `sign_in` adds it, is replaced by what NGINX knows.
    let guesser = front.client("127.0.0.7");
    front.sign_in(&guesser, "through-nginx", "wrong").await;
    let line = front.refused("through-nginx").await;
    assert!(line.contains("127.0.0.7") && !line.contains("203.0.113.9"), "{line}");

    // Who comes to the port itself, past the proxy, is believed nothing.
    let wish = SignIn { username: "past-nginx".to_owned(), password: "wrong".to_owned() };
    let past = front.client("127.0.0.9").post(front.control_plane.url("/api/v1/session")).json(&wish);
    let past = past.header("x-forwarded-for", "198.51.100.4").header("x-forwarded-proto", "https");
    assert_eq!(past.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let line = front.refused("past-nginx").await;
    assert!(line.contains("127.0.0.9") && !line.contains("198.51.100.4"), "{line}");

    // So one who guesses passwords is slowed down alone, whatever he makes up.
    let mut throttled = None;
    for attempt in 0..30 {
        let answer = front.sign_in(&guesser, &format!("guess-{attempt}"), "wrong").await;
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            throttled = Some(answer);
            break;
        }
    }
    let throttled = throttled.expect("nobody may guess on and on");
    assert!(throttled.headers().contains_key("retry-after"));
    let other = front.sign_in(&front.client("127.0.0.8"), "someone", "wrong").await;
    assert_eq!(other.status(), StatusCode::UNAUTHORIZED, "others are not slowed down with him");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_answers_nobody_who_comes_through_a_proxy() {
    let front = Front::of(Setup::default()).await;
    let client = front.client("127.0.0.1");
    for path in ["/", "/api/v1/me", "/health"] {
        let answer = client.get(format!("{}{path}", front.origin())).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path}");
        let problem: Problem = answer.json().await.unwrap();
        assert_eq!(problem.code, Code::NotAllowed, "{path}");
        assert!(problem.detail.contains("without --demo"), "{path}: {}", problem.detail);
    }
    let signed_in = front.sign_in(&client, "admin", "deployex").await;
    assert_eq!(signed_in.status(), StatusCode::FORBIDDEN);
    // On the machine itself it answers.
    assert!(tests::http::get(&front.control_plane.url("/health")).await.is_ok());
}
