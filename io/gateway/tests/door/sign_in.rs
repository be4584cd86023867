//! Browsers that sign in: by a bearer, a passphrase, a code of this machine; what the cookie is worth, and when it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sealtide_crypto::{Passphrase, PassphraseCost, SeededEntropy, sha256};
use sealtide_gateway::{Auth, Bearer, PassphraseHolder, Role, Server, Settings, Verifier};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, Desk, Still, ask, ask_from, body, door, status};

const PATH: &str = "/api/auth/session";
const JSON: &str = "Content-Type: application/json";
const PASSPHRASE: &str = "four random words here";

fn settings(settings: &mut Settings) {
    let bearer = |name: &str, role| Bearer { digest: sha256(name.as_bytes()), id: name.into(), role };
    settings.bearers = vec![bearer("reader", Role::Reader), bearer("boss", Role::Admin)];
    let cheap = PassphraseCost { memory_kib: 19 * 1024, passes: 1, lanes: 1 };
    let verifier = Verifier::make(&Passphrase::new(PASSPHRASE), cheap, &mut SeededEntropy::new(7));
    settings.passphrases = vec![PassphraseHolder { id: "eve".to_owned(), role: Role::Bumper, verifier }];
    settings.auth = Some(Auth::Bearer);
}

async fn post(at: SocketAddr, lines: &[&str], text: &str) -> String {
    ask(at, &format!("POST {PATH}"), &[&[JSON], lines].concat(), text).await
}

/// The `Cookie` line that follows from an answer.
fn cookie(answer: &str) -> String {
    let line = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap_or_else(|| panic!("{answer}"));
    assert!(line.contains("; HttpOnly") && line.contains("; SameSite=Strict") && line.contains("; Path=/"), "{line}");
    format!("Cookie: {}", line.split(';').next().unwrap())
}

async fn who(at: SocketAddr, lines: &[&str]) -> (u16, serde_json::Value) {
    let answer = ask(at, &format!("GET {PATH}"), lines, "").await;
    (status(&answer), body(&answer))
}

async fn fetched(at: SocketAddr, line: &str, purpose: &str) -> String {
    let answer = ask(at, &format!("GET /api/auth/csrf-token?purpose={purpose}"), &[line], "").await;
    body(&answer)["token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

async fn open() -> (Arc<Desk>, Server, SocketAddr) {
    let desk = Desk::new();
    let server = door(&desk, settings).await;
    let at = server.address();
    (desk, server, at)
}

// Proves: GW-92
#[tokio::test]
async fn each_proof_gives_a_cookie_with_the_role_of_its_holder() {
    let (desk, _server, at) = open().await;
    *desk.code.lock().unwrap() = Some("one-time".to_owned());
    let elsewhere = post(at, &["X-Forwarded-For: 203.0.113.9"], r#"{"code":"one-time"}"#).await;
    assert_eq!(status(&elsewhere), 401, "a code is for this machine, and stays good: {elsewhere}");
    let by_name = format!(r#"{{"name":"eve","passphrase":"{PASSPHRASE}"}}"#);
    let proofs = [
        (vec!["Authorization: Bearer reader"], "{}", ("reader", "reader")),
        (vec![], by_name.as_str(), ("eve", "bumper")),
        (vec![], r#"{"code":"one-time"}"#, ("local:", "admin")),
    ];
    for (lines, text, (id, role)) in proofs {
        let answer = post(at, &lines, text).await;
        assert_eq!(status(&answer), 200, "{answer}");
        let cookie = cookie(&answer);
        let (code, told) = who(at, &[&cookie]).await;
        assert_eq!((code, &told["id"], &told["role"]), (200, &id.into(), &role.into()));
        // What the role may do it may do with the cookie alone, and nothing else.
        let read = ask(at, "GET /version/registry", &[&cookie], "").await;
        assert_eq!(status(&read), 200);
        let token = fetched(at, &cookie, "http").await;
        let lines = [JSON, &format!("X-CSRF-Token: {token}"), &cookie];
        let bumped = ask(at, "POST /version/bump", &lines, r#"{"dryRun":true}"#).await;
        assert_eq!(status(&bumped), if id == "reader" { 403 } else { 200 }, "{id}: {bumped}");
        let ended = ask(at, &format!("DELETE {PATH}"), &[&cookie], "").await;
        assert!(status(&ended) == 200 && ended.contains("Max-Age=0"), "{ended}");
        assert_eq!(who(at, &[&cookie]).await.0, 401, "signed out");
        assert_eq!(status(&ask(at, "GET /health", &[&cookie], "").await), 200, "health is for everybody");
    }
    assert_eq!(status(&post(at, &[], r#"{"code":"one-time"}"#).await), 401, "good once");
    let names: Vec<&str> = desk.events.lock().unwrap().iter().map(|event| event.name).collect();
    let count = |name: &str| names.iter().filter(|own| **own == name).count();
    assert_eq!((count("access:signed_in"), count("access:signed_out"), count("access:sign_in_refused")), (3, 3, 2));
}

// Proves: GW-92
#[tokio::test]
async fn what_is_no_proof_gives_no_cookie() {
    let (_desk, _server, at) = open().await;
    let refusals: [(&[&str], &str, u16); 10] = [
        (&["Authorization: Bearer stranger"], "{}", 401),
        (&[], r#"{"name":"eve","passphrase":"another one"}"#, 401),
        (&[], r#"{"name":"nobody","passphrase":"four random words here"}"#, 401),
        (&[], r#"{"code":"guessed"}"#, 401),
        (&[], "{}", 400),
        (&[], r#"{"name":"eve"}"#, 400),
        (&["Authorization: Bearer boss"], r#"{"code":"one-time"}"#, 400),
        (&[], r#"{"code":"x","more":1}"#, 400),
        (&["Origin: https://evil.example", "Authorization: Bearer boss"], "{}", 403),
        (&["Sec-Fetch-Site: same-site", "Authorization: Bearer boss"], "{}", 403),
    ];
    for (lines, text, wanted) in refusals {
        let answer = post(at, lines, text).await;
        assert_eq!(status(&answer), wanted, "{lines:?} {text}: {answer}");
        assert!(!answer.to_lowercase().contains("set-cookie"), "{answer}");
    }
    // A form of a foreign page can send no JSON, and the passphrase does not come back in any answer.
    let form = ask(at, &format!("POST {PATH}"), &["Content-Type: text/plain"], r#"{"code":"x"}"#).await;
    assert_eq!(status(&form), 415);
    assert_eq!(status(&ask(at, &format!("PUT {PATH}"), &[], "").await), 405);
    // A cookie that nobody knows is refused and not taken for none; two are none.
    let name = format!("sealtide-{}", at.port());
    for line in [format!("Cookie: {name}={}", "A".repeat(43)), format!("Cookie: {name}=a; {name}=b")] {
        assert_eq!(status(&ask(at, "GET /version/keys", &[&line], "").await), 401);
    }
    assert_eq!(status(&ask(at, "GET /version/keys", &["Cookie: other=a"], "").await), 200);
}

/// A page of this door: a cookie that the browser sends by itself, on the token and on the upgrade.
// Proves: GW-92
#[tokio::test]
async fn a_browser_with_a_cookie_gets_a_session_of_its_holder() {
    let (_desk, _server, at) = open().await;
    let cookie = cookie(&post(at, &[], &format!(r#"{{"name":"eve","passphrase":"{PASSPHRASE}"}}"#)).await);
    let token = fetched(at, &cookie, "ws").await;
    let lines = |token: &str, cookie: &str, origin: &str| {
        vec![
            format!("Sec-WebSocket-Protocol: tes-ui-v1, tes-token.{token}"),
            cookie.to_owned(),
            format!("Origin: {origin}"),
        ]
    };
    let own = format!("http://{at}");
    let refused = Client::open(at, &lines(&token, &cookie, "https://evil.example"), b"").await.err().unwrap();
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    let mut client = Client::open(at, &lines(&token, &cookie, &own), b"").await.unwrap();
    assert_eq!(client.ask(r#"{"type":"bump","dryRun":true}"#).await["type"], "bump_response");
    // The token of one holder is none of another's.
    let other = self::cookie(&post(at, &["Authorization: Bearer boss"], "{}").await);
    let token = fetched(at, &cookie, "ws").await;
    assert!(Client::open(at, &lines(&token, &other, &own), b"").await.is_err());
}

/// A page that is signed in: its session, by a token that it fetches now.
async fn session_of(at: SocketAddr, cookie: &str, token: &str) -> Result<Client, String> {
    let lines = [format!("X-TES-WS-CSRF-Token: {token}"), cookie.to_owned(), format!("Origin: http://{at}")];
    Client::open(at, &lines, b"").await
}

/// Nothing that was begun with a sign-in goes on without it: sessions that it began, or renewed, and tokens that wait. What another
/// sign-in of the same holder began goes on.
// Proves: GW-92
#[tokio::test]
async fn what_a_sign_in_began_ends_with_it() {
    let (_desk, _server, at) = open().await;
    let boss = "Authorization: Bearer boss";
    let mut cookies = Vec::new();
    for _ in 0..2 {
        cookies.push(cookie(&post(at, &[boss], "{}").await));
    }
    let [gone, stays] = cookies.try_into().unwrap();
    let mut begun = session_of(at, &gone, &fetched(at, &gone, "ws").await).await.unwrap();
    let mut renewed = session_of(at, &stays, &fetched(at, &stays, "ws").await).await.unwrap();
    let mut other = session_of(at, &stays, &fetched(at, &stays, "ws").await).await.unwrap();
    let renew = |token: &str| format!(r#"{{"type":"renew","token":"{token}"}}"#);
    assert_eq!(renewed.ask_said(&renew(&fetched(at, &gone, "ws").await)).await["type"], "renewed");
    assert_eq!(begun.ask_said(r#"{"type":"ping"}"#).await["type"], "pong");
    let (waits, late) = (fetched(at, &gone, "ws").await, fetched(at, &gone, "ws").await);
    assert_eq!(status(&ask(at, &format!("DELETE {PATH}"), &[&gone], "").await), 200);
    assert_eq!((begun.next_said().await, renewed.next_said().await), (Err(4401), Err(4401)));
    // Nor is its token good for somebody else of the same name.
    assert!(session_of(at, &stays, &waits).await.is_err());
    assert_eq!(other.ask_said(&renew(&late)).await["code"], "CSRF_INVALID");
    assert_eq!(other.ask_said(r#"{"type":"ping"}"#).await["type"], "pong");
    // The oldest of 32 ends for the next one.
    for _ in 0..32 {
        let answer = post(at, &[boss], "{}").await;
        assert_eq!(status(&answer), 200, "{answer}");
    }
    assert_eq!(other.next_said().await, Err(4401));
}

/// The next door of the same home knows who was signed in, and nobody who signed out or is not in the file any more.
// Proves: GW-92
#[tokio::test]
async fn a_sign_in_outlives_its_door() {
    let (desk, server, at) = open().await;
    let by_name = format!(r#"{{"name":"eve","passphrase":"{PASSPHRASE}"}}"#);
    let mut cookies = Vec::new();
    for (lines, text) in [(vec![], by_name.as_str()), (vec!["Authorization: Bearer reader"], "{}")] {
        cookies.push(cookie(&post(at, &lines, text).await));
    }
    let gone = cookie(&post(at, &["Authorization: Bearer boss"], "{}").await);
    assert_eq!(status(&ask(at, &format!("DELETE {PATH}"), &[&gone], "").await), 200);
    drop(server);
    let next = door(&desk, |all| {
        settings(all);
        all.bearers.retain(|bearer| bearer.id != "reader");
    })
    .await;
    // A cookie is called after its port.
    let here = |line: &str| line.replace(&at.port().to_string(), &next.address().port().to_string());
    let found = who(next.address(), &[&here(&cookies[0])]).await;
    assert_eq!((found.0, &found.1["id"], &found.1["role"]), (200, &"eve".into(), &"bumper".into()));
    assert_eq!(who(next.address(), &[&here(&cookies[1])]).await.0, 401, "nobody is called so any more");
    assert_eq!(who(next.address(), &[&here(&gone)]).await.0, 401, "signed out");
}

// Proves: GW-95
#[tokio::test]
async fn tries_are_counted_where_rates_hold() {
    let server = door(&Desk::new(), |all| {
        settings(all);
        all.limits_loopback = true;
    })
    .await;
    let from = "127.0.0.9".parse().unwrap();
    let mut codes = Vec::new();
    for _ in 0..4 {
        let answer = ask_from(from, server.address(), &format!("POST {PATH}"), &[JSON], r#"{"code":"guess"}"#).await;
        codes.push(status(&answer));
    }
    assert_eq!(codes[..2], [401, 401], "a burst of two");
    assert!(codes[2..].contains(&429), "{codes:?}");
}

/// Sessions of a holder are told when four fifths are over and end with 4401; who renews goes on.
// Proves: GW-30
#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_renews_ends_with_4401() {
    let still = Still::new();
    let server = door(&Desk::new(), |all| {
        settings(all);
        all.session_ttl_ms = 50_000;
        all.allow_missing_origin = Some(true);
    })
    .await;
    let at = server.address();
    let enter = async |line: &str| {
        let lines = [format!("X-TES-WS-CSRF-Token: {}", fetched(at, line, "ws").await)];
        Client::open(at, &lines, b"").await.unwrap()
    };
    let boss = "Authorization: Bearer boss";
    let (mut left, mut renewed, mut nobody) = (enter(boss).await, enter(boss).await, enter("X-None: 1").await);
    for client in [&mut left, &mut renewed, &mut nobody] {
        assert_eq!(client.ask(r#"{"type":"ping"}"#).await["type"], "pong");
    }
    tokio::time::advance(Duration::from_secs(40)).await;
    for client in [&mut left, &mut renewed] {
        let told = client.next_said().await.unwrap();
        assert_eq!((&told["type"], &told["code"]), (&"notice".into(), &"SESSION_RENEW".into()));
    }
    let token = fetched(at, boss, "ws").await;
    let told = renewed.ask_said(&format!(r#"{{"type":"renew","token":"{token}"}}"#)).await;
    assert_eq!(told["type"], "renewed");
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(left.next_said().await, Err(4401));
    assert_eq!(renewed.ask_said(r#"{"type":"ping"}"#).await["type"], "pong", "it was renewed");
    assert_eq!(nobody.ask_said(r#"{"type":"ping"}"#).await["type"], "pong", "nobody's session has no end");
    drop(still);
}

/// Who is taken out of the file of bearers is out: cookies, tokens and sessions.
// Proves: GW-85
#[tokio::test]
async fn a_holder_who_is_taken_out_is_out_at_once() {
    let (_desk, server, at) = open().await;
    let cookie = cookie(&post(at, &["Authorization: Bearer boss"], "{}").await);
    let token = fetched(at, &cookie, "ws").await;
    let lines = [format!("X-TES-WS-CSRF-Token: {token}"), cookie.clone(), format!("Origin: http://{at}")];
    let mut client = Client::open(at, &lines, b"").await.unwrap();
    assert_eq!(client.ask(r#"{"type":"ping"}"#).await["type"], "pong");
    let mut fewer = Settings::default();
    settings(&mut fewer);
    fewer.bearers.retain(|bearer| bearer.id != "boss");
    server.reload(fewer).unwrap();
    assert_eq!(client.next_said().await, Err(4401));
    assert_eq!(who(at, &[&cookie]).await.0, 401);
}

/// Nothing that was begun before keeps such a holder in: a connection that is open, a token that waits, a session that another began and
/// the holder renewed.
// Proves: GW-85
#[tokio::test]
async fn nothing_of_before_keeps_a_holder_in_who_is_taken_out() {
    let server = door(&Desk::new(), |all| {
        settings(all);
        all.allow_missing_origin = Some(true);
    })
    .await;
    let at = server.address();
    let boss = "Authorization: Bearer boss";
    let enter = async |token: &str| Client::open(at, &[format!("X-TES-WS-CSRF-Token: {token}")], b"").await;
    let mut renewed = enter(&fetched(at, "X-None: 1", "ws").await).await.unwrap();
    let mut other = enter(&fetched(at, "X-None: 1", "ws").await).await.unwrap();
    let renew = |token: &str| format!(r#"{{"type":"renew","token":"{token}"}}"#);
    assert_eq!(renewed.ask_said(&renew(&fetched(at, boss, "ws").await)).await["type"], "renewed");
    let (waits, late) = (fetched(at, boss, "ws").await, fetched(at, boss, "ws").await);
    let mut kept = TcpStream::connect(at).await.unwrap();
    let asked = format!("GET {PATH} HTTP/1.1\r\nHost: {at}\r\n{boss}\r\n\r\n");
    let mut ask_kept = async || {
        kept.write_all(asked.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4_096];
        let read = kept.read(&mut answer).await.unwrap();
        status(&String::from_utf8_lossy(&answer[..read]))
    };
    assert_eq!(ask_kept().await, 200);
    let mut fewer = Settings { allow_missing_origin: Some(true), ..Settings::default() };
    settings(&mut fewer);
    fewer.bearers.retain(|bearer| bearer.id != "boss");
    server.reload(fewer).unwrap();
    assert_eq!(ask_kept().await, 401);
    assert!(enter(&waits).await.is_err());
    assert_eq!(other.ask_said(&renew(&late)).await["code"], "CSRF_INVALID");
    assert_eq!(renewed.next_said().await, Err(4401));
}
