//! The door behind nginx, as people run it: who is public, whose address counts, upgrades through the proxy.
//!
//! `make setup` installs nginx; where it is missing the test says so and proves nothing.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use sealtide_crypto::sha256;
use sealtide_gateway::{Bearer, Role};
use tokio::net::TcpStream;

use crate::client::{Client, Desk, ask, ask_from, body, door, status};

/// A running nginx in front of a door; it is ended when dropped.
struct Nginx {
    child: Child,
    at: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What nginx tells the door; `lines` are `proxy_set_header` directives.
fn configuration(dir: &str, at: SocketAddr, door: SocketAddr, lines: &str) -> String {
    let temp =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {dir}/{name};"));
    format!(
        "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;\nevents {{}}\n\
         http {{ access_log off; {}\n\
         map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}\n\
         server {{ listen {at}; location / {{ proxy_pass http://{door}; proxy_http_version 1.1;\n\
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;\n{lines}\n}} }} }}\n",
        temp.join(" ")
    )
}

impl Nginx {
    /// None where nginx is not installed. A port that somebody else took meanwhile is tried again with another.
    async fn start(door: SocketAddr, lines: &str) -> Option<Self> {
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"];
        let Some(program) = program.into_iter().find(|path| std::path::Path::new(path).exists()) else {
            println!("SKIPPED: nginx is not installed (make setup installs it)");
            return None;
        };
        for _ in 0..5 {
            let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().to_str().unwrap().to_owned();
            std::fs::write(dir.path().join("nginx.conf"), configuration(&path, at, door, lines)).unwrap();
            let mut child = Command::new(program)
                .args(["-p", &path, "-c", &format!("{path}/nginx.conf"), "-e", &format!("{path}/error.log")])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            while child.try_wait().unwrap().is_none() {
                if TcpStream::connect(at).await.is_ok() {
                    return Some(Self { child, at, _dir: dir });
                }
            }
            println!("{}", std::fs::read_to_string(dir.path().join("error.log")).unwrap_or_default());
        }
        panic!("nginx does not start")
    }
}

// Proves: GW-93, GW-16
#[tokio::test]
async fn public_listener() {
    let server = door(&Desk::new(), |_| {}).await;
    let at = server.address();
    let Some(nginx) = Nginx::start(at, "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;").await else {
        return;
    };
    // nginx says the door's own address as host where it is told nothing else.
    let bump = ["Content-Type: application/json", "X-CSRF-Token: x"];
    assert_eq!(status(&ask(nginx.at, "GET /version/registry", &[], "").await), 401, "the world reads nothing");
    assert_eq!(status(&ask(nginx.at, "POST /version/bump", &bump, "{}").await), 401, "and bumps nothing");
    assert_eq!(status(&ask(nginx.at, "GET /metrics", &[], "").await), 404);
    assert_eq!(status(&ask(at, "GET /version/registry", &[], "").await), 200, "this machine keeps its rights");
    let token = body(&ask(nginx.at, "GET /api/auth/csrf-token", &[], "").await)["token"].as_str().unwrap().to_owned();
    let lines = [format!("X-TES-WS-CSRF-Token: {token}")];
    let mut client = Client::open(nginx.at, &lines, b"").await.unwrap();
    assert_eq!(client.ask(r#"{"type":"ping"}"#).await["type"], "pong");
    assert_eq!(client.ask(r#"{"type":"bump"}"#).await["code"], "FORBIDDEN");
    assert_eq!(client.ask(r#"{"type":"refresh"}"#).await["code"], "FORBIDDEN");
}

/// A proxy that adds no header cannot be told from a program of this machine: `auth = bearer` is for that.
// Proves: GW-93
#[tokio::test]
async fn a_proxy_that_says_nothing_needs_bearers() {
    for (auth, wanted) in [(None, 200), (Some(sealtide_gateway::Auth::Bearer), 401)] {
        let server = door(&Desk::new(), |settings| settings.auth = auth).await;
        let Some(nginx) = Nginx::start(server.address(), "").await else { return };
        assert_eq!(status(&ask(nginx.at, "GET /version/registry", &[], "").await), wanted);
    }
}

// Proves: GW-17, GW-93
#[tokio::test]
async fn behind_a_trusted_nginx() {
    let server = door(&Desk::new(), |settings| {
        settings.public_host = Some("tides.example".into());
        settings.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        settings.bearers = vec![Bearer { digest: sha256(b"reader"), id: "reader".into(), role: Role::Reader }];
        settings.tokens_per_source = Some(1);
    })
    .await;
    let lines = "proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;";
    let Some(nginx) = Nginx::start(server.address(), lines).await else { return };
    let host = "Host: tides.example";
    let bearer = "Authorization: Bearer reader";
    for at in [nginx.at, server.address()] {
        // The listener counts as public: nobody is somebody without a credential, through the proxy or beside it.
        assert_eq!(status(&ask(at, "GET /version/registry", &[host], "").await), 401);
        assert_eq!(status(&ask(at, "GET /version/registry", &[host, bearer], "").await), 200);
        assert_eq!(status(&ask(at, "GET /version/registry", &["Host: evil.example", bearer], "").await), 400);
    }
    // The address that counts is the client's own, whatever it says before nginx adds it.
    let from = |last: u8| IpAddr::from([127, 0, 0, last]);
    let fetch = async |last, more: &[&str]| {
        let lines = [&[host], more].concat();
        ask_from(from(last), nginx.at, "GET /api/auth/csrf-token", &lines, "").await
    };
    let first = fetch(2, &[]).await;
    assert_eq!(status(&first), 200);
    for forged in ["X-Forwarded-For: 9.9.9.9", "X-Forwarded-For: 127.0.0.1, 8.8.8.8", "X-Real-IP: 7.7.7.7"] {
        assert_eq!(status(&fetch(2, &[forged]).await), 429, "{forged}");
    }
    let second = fetch(3, &["X-Forwarded-For: 127.0.0.2"]).await;
    assert_eq!(status(&second), 200);
    // A page upgrades with what it fetched, from where it fetched it.
    let offer = |answer: &str| {
        let token = body(answer)["token"].as_str().unwrap().to_owned();
        let origin = "Origin: https://tides.example".to_owned();
        vec![host.to_owned(), origin, format!("Sec-WebSocket-Protocol: tes-ui-v1, tes-token.{token}")]
    };
    let elsewhere = Client::open_from(from(3), nginx.at, &offer(&first), b"").await;
    assert!(elsewhere.err().unwrap().starts_with("HTTP/1.1 403"));
    let mut client = Client::open_from(from(2), nginx.at, &offer(&first), b"").await.unwrap();
    assert_eq!(client.ask(r#"{"type":"ping"}"#).await["type"], "pong");
    let fetched = fetch(4, &[bearer]).await;
    let mut reader = Client::open_from(from(4), nginx.at, &offer(&fetched), b"").await.unwrap();
    assert_eq!(reader.ask(r#"{"type":"refresh"}"#).await["type"], "refresh_response");
    assert_eq!(reader.ask(r#"{"type":"bump"}"#).await["code"], "FORBIDDEN");
}
