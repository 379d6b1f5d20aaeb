//! Who gets in, and who may do what.

use axum::http::{Method, StatusCode};
use proto::problem::Code;
use proto::state::Role;
use proto::users::{Me, PasswordChanged, Via};
use utoipa::OpenApi as _;

use super::super::openapi::Document;
use super::super::{outside, v1};
use super::{Bench, Call, PASSWORD, sign_in};
use crate::http::routes::Needs;

/// Every route and who may use it: changed by hand, so that a change of a right is seen.
const RIGHTS: &str = "
GET /api/v1/applications viewer
GET /api/v1/applications/{app} viewer
GET /api/v1/applications/{app}/ghosted viewer
GET /api/v1/applications/{app}/doctor viewer
GET /api/v1/applications/{app}/logo viewer
GET /api/v1/applications/{app}/history viewer
GET /api/v1/applications/{app}/releases viewer
GET /api/v1/applications/{app}/releases/{version}/check viewer
GET /api/v1/configuration viewer
GET /api/v1/configuration/versions viewer
GET /api/v1/configuration/versions/{number} viewer
GET /api/v1/control-plane viewer
GET /api/v1/events viewer
GET /api/v1/fleet viewer
GET /api/v1/live viewer
GET /api/v1/me viewer
GET /api/v1/metrics-history viewer
GET /api/v1/nodes viewer
GET /api/v1/nodes/{node} viewer
GET /api/v1/openapi.json anyone
GET /api/v1/replicas viewer
GET /api/v1/replicas/{node}/{app}/{slot} viewer
GET /api/v1/replicas/{node}/{app}/{slot}/history viewer
GET /api/v1/replicas/{node}/{app}/{slot}/logs viewer
GET /api/v1/replicas/{node}/{app}/{slot}/metrics viewer
GET /api/v1/replicas/{node}/{app}/{slot}/telemetry viewer
GET /api/v1/restarts/{id} viewer
GET /api/v1/rollouts viewer
GET /api/v1/rollouts/{id} viewer
GET /api/v1/session anyone
GET /api/v1/tokens admin
GET /health anyone
GET /metrics anyone
POST /api/v1/applications/{app}/deploy operator
POST /api/v1/applications/{app}/pin operator
POST /api/v1/applications/{app}/restart operator
POST /api/v1/applications/{app}/scale operator
POST /api/v1/applications/{app}/rollback operator
POST /api/v1/configuration/apply admin
POST /api/v1/configuration/plan operator
POST /api/v1/control-plane/restart admin
POST /api/v1/join-tokens admin
POST /api/v1/me/password viewer
POST /api/v1/nodes/{node}/restart operator
POST /api/v1/nodes/{node}/restart-agent operator
POST /api/v1/replicas/{node}/{app}/{slot}/restart operator
POST /api/v1/replicas/{node}/{app}/{slot}/rpc operator
POST /api/v1/rollouts/{id}/pause operator
POST /api/v1/rollouts/{id}/resume operator
POST /api/v1/rollouts/{id}/promote operator
POST /api/v1/rollouts/{id}/abort operator
PATCH /api/v1/nodes/{node} operator
POST /api/v1/nodes/{node}/cordon operator
POST /api/v1/nodes/{node}/uncordon operator
POST /api/v1/nodes/{node}/drain operator
POST /api/v1/session anyone
POST /api/v1/tokens admin
DELETE /api/v1/applications/{app}/ghosted operator
DELETE /api/v1/applications/{app}/ghosted/{version} operator
DELETE /api/v1/applications/{app}/pin operator
DELETE /api/v1/nodes/{node} admin
DELETE /api/v1/session viewer
DELETE /api/v1/tokens/{id} admin
";

fn table(bench: &Bench) -> Vec<(Method, String, Needs)> {
    let (api, out) = (v1(&bench.api), outside(&bench.api));
    let in_api = api.table().iter().map(|it| (it.method.clone(), format!("/api/v1{}", it.path), it.needs));
    in_api.chain(out.table().iter().map(|it| (it.method.clone(), it.path.to_owned(), it.needs))).collect()
}

#[tokio::test]
async fn every_route_says_who_may_use_it() {
    let word = |needs| match needs {
        Needs::Nobody => "anyone",
        Needs::Role(role) => role.word(),
    };
    let mut found: Vec<String> = table(&Bench::new().await)
        .into_iter()
        .map(|(method, path, needs)| format!("{method} {path} {}", word(needs)))
        .collect();
    let mut expected: Vec<&str> = RIGHTS.trim().lines().collect();
    found.sort();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_role_may_what_the_table_says_and_no_more() {
    let bench = Bench::new().await;
    let mut tokens = Vec::new();
    for role in Role::ALL {
        tokens.push((*role, bench.token(*role).await));
    }
    for (method, path, needs) in table(&bench) {
        let path = path
            .replace("{app}", "nothing")
            .replace("{node}", "nothing")
            .replace("{slot}", "1")
            .replace("{version}", "1.0")
            .replace("{id}", "01890a5d-ac96-774b-bcce-b302099a8057");
        let Needs::Role(needed) = needs else { continue };
        let stranger = bench.send(Call::new(method.clone(), &path)).await;
        assert_eq!(stranger.status, StatusCode::UNAUTHORIZED, "{method} {path}");
        assert_eq!(stranger.code(), Code::NotSignedIn.word());
        for (role, token) in &tokens {
            let answer = bench.send(Call::new(method.clone(), &path).bearer(token)).await;
            let refused = answer.status == StatusCode::FORBIDDEN;
            assert_eq!(refused, *role < needed, "{role} {method} {path}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn the_document_and_the_routes_agree() {
    let document = serde_json::to_value(Document::openapi()).unwrap();
    let mut described: Vec<String> = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let methods = operations.as_object().unwrap().keys();
        described.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
    }
    let mut routed: Vec<String> =
        table(&Bench::new().await).into_iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    described.sort();
    routed.sort();
    assert_eq!(described, routed);
    insta::assert_json_snapshot!("openapi", document);
}

#[tokio::test]
async fn one_signs_in_acts_and_signs_out() {
    let bench = Bench::new().await;
    let (cookie, csrf) = bench.sign_in().await;
    let me: Me = bench.send(Call::get("/api/v1/me").header("cookie", &cookie)).await.json();
    assert_eq!((me.name.as_str(), me.role, me.via), ("admin", Role::Admin, Via::Session));
    let out = Call::new(Method::DELETE, "/api/v1/session").header("cookie", &cookie);
    let answer = bench.send(out.header("x-deployex-csrf", &csrf)).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    let answer = bench.send(Call::get("/api/v1/me").header("cookie", &cookie)).await;
    assert_eq!(answer.code(), "not-signed-in");
}

#[tokio::test]
async fn whoever_asks_who_is_signed_in_is_told_and_never_refused() {
    let bench = Bench::new().await;
    assert_eq!(bench.send(Call::get("/api/v1/session")).await.status, StatusCode::NO_CONTENT);
    let (cookie, csrf) = bench.sign_in().await;
    let me: Me = bench.send(Call::get("/api/v1/session").header("cookie", &cookie)).await.json();
    assert_eq!((me.name.as_str(), me.csrf_token), ("admin", Some(csrf)));
    let ended = bench.send(Call::get("/api/v1/session").header("cookie", "deployex=0123456789")).await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_look_the_same() {
    let bench = Bench::new().await;
    let wrong = bench.send(sign_in("admin", "not the password")).await;
    let unknown = bench.send(sign_in("nobody", PASSWORD)).await;
    assert_eq!((wrong.status, wrong.code()), (StatusCode::UNAUTHORIZED, "wrong-credentials".to_owned()));
    let said = |answer: &super::Answer| answer.json::<proto::problem::Problem>().detail;
    assert_eq!(said(&wrong), said(&unknown));
    let long = bench.send(sign_in("admin", &"x".repeat(73))).await;
    assert_eq!(long.code(), "invalid-input");
    assert!(long.text().contains("72 bytes"));
}

#[tokio::test]
async fn guessing_is_throttled_and_does_not_lock_the_owner_out() {
    let bench = Bench::new().await;
    bench.sign_in().await;
    let mut last = None;
    for _ in 0..11 {
        last = Some(bench.send(sign_in("admin", "guess").from("198.51.100.9")).await);
    }
    let last = last.unwrap();
    assert_eq!((last.status, last.code()), (StatusCode::TOO_MANY_REQUESTS, "too-many-attempts".to_owned()));
    assert!(last.headers.contains_key("retry-after"));
    bench.sign_in().await;
}

/// Under the session that [`Bench::sign_in`] gave.
fn change_password((cookie, csrf): &(String, String), current: &str, new: &str) -> Call {
    let body = serde_json::json!({ "current": current, "new": new });
    Call::post("/api/v1/me/password", &body).header("cookie", cookie).header("x-deployex-csrf", csrf)
}

#[tokio::test]
async fn a_new_password_is_in_force_at_once_and_ends_the_other_sessions() {
    let bench = Bench::new().await;
    let (mine, other) = (bench.sign_in().await, bench.sign_in().await);
    let answer = bench.send(change_password(&mine, PASSWORD, "correct horse")).await;
    assert_eq!(answer.json::<PasswordChanged>(), PasswordChanged { sessions_ended: 1 });
    let me = |session: &(String, String)| Call::get("/api/v1/me").header("cookie", &session.0);
    assert_eq!(bench.send(me(&mine)).await.status, StatusCode::OK);
    assert_eq!(bench.send(me(&other)).await.code(), "not-signed-in");
    assert_eq!(bench.send(sign_in("admin", PASSWORD)).await.code(), "wrong-credentials");
    assert_eq!(bench.send(sign_in("admin", "correct horse")).await.status, StatusCode::OK);
    let events = bench.send(Call::get("/api/v1/events").header("cookie", &mine.0)).await;
    assert!(events.text().contains("admin changed their password"), "{}", events.text());
    let audit = bench.api.db.audit(crate::db::PageRequest::newest(10)).await.unwrap();
    assert!(audit.items.iter().any(|it| it.what == "password.change" && it.who == "admin"));
}

#[tokio::test]
async fn a_password_is_changed_by_who_knows_it_to_one_that_can_be_one() {
    let bench = Bench::new().await;
    let mine = bench.sign_in().await;
    let long = "x".repeat(73);
    for (current, new, path, why) in [
        ("wrong", "correct horse", "current", "is not the password"),
        (PASSWORD, "short", "new", "at least 8 characters"),
        (PASSWORD, long.as_str(), "new", "72 bytes"),
        (PASSWORD, PASSWORD, "new", "in force"),
    ] {
        let answer = bench.send(change_password(&mine, current, new)).await;
        assert_eq!(answer.code(), "invalid-input");
        let problem: proto::problem::Problem = answer.json();
        let said: Vec<_> = problem.errors.iter().map(|it| (it.path.as_str(), it.message.as_str())).collect();
        assert!(matches!(said[..], [(at, message)] if at == path && message.contains(why)), "{said:?}");
    }
    let token = bench.token(Role::Admin).await;
    let body = serde_json::json!({ "current": PASSWORD, "new": "correct horse" });
    let by_token = bench.send(Call::post("/api/v1/me/password", &body).bearer(&token)).await;
    assert_eq!(by_token.code(), "conflict");
    assert_eq!(bench.send(sign_in("admin", PASSWORD)).await.status, StatusCode::OK, "it is what it was");
}

#[tokio::test]
async fn a_password_that_the_next_start_would_put_back_is_not_changed() {
    let variable = "DEPLOYEX_ADMIN_HASHED_PASSWORD";
    let bench = Bench::with(|settings| settings.admin_password_from = Some(variable)).await;
    let mine = bench.sign_in().await;
    let answer = bench.send(change_password(&mine, PASSWORD, "correct horse")).await;
    assert_eq!(answer.code(), "conflict");
    assert!(answer.text().contains(variable), "{}", answer.text());
}

#[tokio::test]
async fn guessing_the_password_in_force_is_throttled_as_signing_in_is() {
    let bench = Bench::new().await;
    let mine = bench.sign_in().await;
    let mut last = None;
    for _ in 0..11 {
        last = Some(bench.send(change_password(&mine, "guess", "correct horse")).await);
    }
    let last = last.unwrap();
    assert_eq!((last.status, last.code()), (StatusCode::TOO_MANY_REQUESTS, "too-many-attempts".to_owned()));
}

#[tokio::test]
async fn a_change_under_a_session_proves_that_it_is_from_our_page() {
    let bench = Bench::new().await;
    let (cookie, csrf) = bench.sign_in().await;
    let create = |name: &str| {
        let body = serde_json::json!({ "name": name, "role": "viewer" });
        Call::post("/api/v1/tokens", &body).header("cookie", &cookie)
    };
    assert_eq!(bench.send(create("a")).await.code(), "csrf-missing");
    let forged = create("b").header("x-deployex-csrf", "AAAA");
    assert_eq!(bench.send(forged).await.code(), "csrf-missing");
    let foreign = create("c").header("x-deployex-csrf", &csrf).header("origin", "https://evil.test");
    assert_eq!(bench.send(foreign).await.code(), "foreign-origin");
    let ours = create("d").header("x-deployex-csrf", &csrf).header("origin", "http://deployex.example.com");
    assert_eq!(bench.send(ours).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn nobody_is_signed_in_by_another_site() {
    let bench = Bench::new().await;
    let answer = bench.send(sign_in("admin", PASSWORD).header("origin", "https://evil.test")).await;
    assert_eq!(answer.code(), "foreign-origin");
}

#[tokio::test]
async fn a_session_that_has_ended_is_none() {
    let bench = Bench::new().await;
    let (cookie, _) = bench.sign_in().await;
    let now = bench.api.clock.now();
    let session = bench.api.db.sessions(Some("admin"), now).await.unwrap().remove(0);
    bench.api.db.touch_session(session.id, now, now).await.unwrap();
    let answer = bench.send(Call::get("/api/v1/me").header("cookie", &cookie)).await;
    assert_eq!(answer.code(), "not-signed-in");
}

#[tokio::test]
async fn a_token_is_shown_once_and_ends_when_it_is_revoked() {
    let bench = Bench::new().await;
    let admin = bench.token(Role::Admin).await;
    let body = serde_json::json!({ "name": "ci", "role": "operator" });
    let answer = bench.send(Call::post("/api/v1/tokens", &body).bearer(&admin)).await;
    let created: proto::users::CreatedToken = answer.json();
    assert!(created.secret.starts_with("dpx_"));
    assert!(bench.newest_event().await.ends_with(" made the token ci (operator)"));
    let again = bench.send(Call::post("/api/v1/tokens", &body).bearer(&admin)).await;
    assert_eq!(again.code(), "conflict");
    let list = bench.send(Call::get("/api/v1/tokens").bearer(&admin)).await;
    assert!(list.text().contains("\"ci\"") && !list.text().contains(&created.secret));
    let me: Me = bench.send(Call::get("/api/v1/me").bearer(&created.secret)).await.json();
    assert_eq!((me.name.as_str(), me.role), ("token:ci", Role::Operator));
    let path = format!("/api/v1/tokens/{}", created.token.id);
    let revoked = bench.send(Call::new(Method::DELETE, &path).bearer(&admin)).await;
    assert_eq!(revoked.status, StatusCode::NO_CONTENT);
    assert!(bench.newest_event().await.ends_with(" revoked the token ci"));
    assert_eq!(bench.send(Call::get("/api/v1/me").bearer(&created.secret)).await.code(), "not-signed-in");
}

#[tokio::test]
async fn the_local_socket_is_for_root_and_audited_by_name() {
    let bench = Bench::new().await;
    let me: Me = bench.send(Call::get("/api/v1/me").through_socket(0)).await.json();
    assert_eq!((me.name.as_str(), me.role, me.via), ("local:root", Role::Admin, Via::Socket));
    let answer = bench.send(Call::get("/api/v1/me").through_socket(65_534)).await;
    assert_eq!(answer.code(), "not-allowed");
    let body = serde_json::json!({ "uses": 2 });
    bench.send(Call::post("/api/v1/join-tokens", &body).through_socket(0)).await;
    let audit = bench.api.db.audit(crate::db::PageRequest::newest(10)).await.unwrap();
    assert_eq!(
        (audit.items[0].who.as_str(), audit.items[0].what.as_str()),
        ("local:root", "join_token.create")
    );
    assert_eq!(bench.newest_event().await, "local:root made a token with which 2 hosts can join");
}

#[tokio::test]
async fn the_demo_answers_this_machine_alone() {
    let bench = Bench::with(|settings| settings.demo = true).await;
    let get = || Call::get("/health").from("127.0.0.1").header("host", "localhost:5001");
    assert_eq!(bench.send(get()).await.status, StatusCode::OK);
    assert_eq!(bench.send(get().header("host", "evil.test")).await.code(), "wrong-host");
    assert_eq!(bench.send(get().header("x-forwarded-for", "127.0.0.1")).await.code(), "not-allowed");
    assert_eq!(bench.send(get().header("via", "1.1 proxy")).await.code(), "not-allowed");
    assert_eq!(bench.send(get().from("192.0.2.1")).await.code(), "not-allowed");
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_cookie_is_secure_and_the_client_is_the_one_it_names() {
    let bench = Bench::new().await;
    let proxied = sign_in("admin", PASSWORD)
        .from("127.0.0.1")
        .header("x-forwarded-for", "198.51.100.77")
        .header("x-forwarded-proto", "https");
    let answer = bench.send(proxied).await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("__Host-deployex=") && cookie.contains("; Secure"), "{cookie}");
    assert!(answer.headers.contains_key("strict-transport-security"));
    let sessions = bench.api.db.sessions(Some("admin"), bench.api.clock.now()).await.unwrap();
    assert_eq!(sessions[0].address, "198.51.100.77");
    let liar = sign_in("admin", PASSWORD).header("x-forwarded-proto", "https");
    let answer = bench.send(liar).await;
    assert!(!answer.headers["set-cookie"].to_str().unwrap().contains("Secure"));
}
