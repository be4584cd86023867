//! The tunnel of a node at the whole door.

use std::net::SocketAddr;
use std::sync::Arc;

use sealtide_gateway::{App, Behind, Code, Server, Settings, TunnelStream, Tunnels};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Desk, Ready, ask, door, status};

/// Sends back what comes.
struct Mirror;

impl Tunnels for Mirror {
    fn open(&self, stream: TunnelStream, _client: SocketAddr) {
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(stream);
            tokio::io::copy(&mut from, &mut to).await
        });
    }
}

async fn with_tunnel() -> Server {
    leading_to(Arc::new(Mirror), None).await
}

async fn leading_to(tunnels: Arc<dyn Tunnels>, trusted: Option<&str>) -> Server {
    let mut host = Settings { public_host: Some("tides.example".to_owned()), ..Settings::default() };
    if let Some(net) = trusted {
        host.trusted_proxies.push(net.parse().unwrap());
    }
    let app: Arc<dyn App> = Desk::new();
    let tunnels = Some((host, tunnels));
    let at = "127.0.0.1:0".parse().unwrap();
    Server::open_with(Settings::default(), at, Arc::new(Ready), Behind { app: Some(app), tunnels, console: None })
        .await
        .unwrap()
}

const UPGRADE: [&str; 4] = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

async fn upgrade(server: &Server, host: &str, lines: &[&str]) -> (String, tokio::net::TcpStream) {
    let mut stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let request = format!("GET /st/v1/tunnel HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    (String::from_utf8(head).unwrap(), stream)
}

/// What follows the upgrade goes to the node, under the host of the tunnel alone, and the door is the door as before.
#[tokio::test]
async fn a_tunnel_beside_everything_else() {
    let server = with_tunnel().await;
    let (head, mut stream) = upgrade(&server, "tides.example", &UPGRADE).await;
    assert_eq!(status(&head), 101);
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");

    for (host, lines, code) in [
        ("evil.example", &UPGRADE[..], Code::HostMismatch),
        ("tides.example", &UPGRADE[2..], Code::UpgradeRequired),
        ("tides.example", &[&UPGRADE[..], &["Origin: https://evil.example"]].concat(), Code::OriginDenied),
        ("tides.example", &[&UPGRADE[..], &["Content-Length: 1"]].concat(), Code::Body),
        ("tides.example", &[&UPGRADE[..3], &["Sec-WebSocket-Key: c2hvcnQ="]].concat(), Code::WsKey),
        ("tides.example", &[&UPGRADE[..2], &UPGRADE[3..], &["Sec-WebSocket-Version: 8"]].concat(), Code::WsVersion),
    ] {
        let (head, _stream) = upgrade(&server, host, lines).await;
        assert_eq!(status(&head), code.status(), "{head}");
    }
    // The host of the tunnel opens nothing else: the settings of the door say which are its own.
    assert_eq!(status(&ask(server.address(), "GET /version/registry", &[], "").await), 200);
    let mut stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let request = "GET /version/registry HTTP/1.1\r\nHost: tides.example\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(status(&answer), Code::HostMismatch.status());
}

/// Keeps where tunnels come from.
struct Book(tokio::sync::mpsc::UnboundedSender<SocketAddr>);

impl Tunnels for Book {
    fn open(&self, _stream: TunnelStream, client: SocketAddr) {
        let _ = self.0.send(client);
    }
}

// Proves: LK-51
#[tokio::test]
async fn observed_addr_behind_a_proxy_is_what_a_trusted_one_says() {
    for (trusted, client) in [("127.0.0.1/32", "203.0.113.9"), ("198.51.100.7/32", "127.0.0.1")] {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let server = leading_to(Arc::new(Book(tell)), Some(trusted)).await;
        let forwarded = [&UPGRADE[..], &["X-Forwarded-For: 203.0.113.9"]].concat();
        let (head, _stream) = upgrade(&server, "tides.example", &forwarded).await;
        assert_eq!(status(&head), 101);
        assert_eq!(told.recv().await.unwrap().ip().to_string(), client, "{trusted}");
    }
}

#[tokio::test]
async fn without_a_tunnel_the_path_is_not_there() {
    let server = door(&Desk::new(), |_| {}).await;
    let host = server.address().to_string();
    assert_eq!(status(&upgrade(&server, &host, &UPGRADE).await.0), 404);
}
