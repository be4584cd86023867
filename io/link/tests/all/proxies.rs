//! Dialling through proxies that forward, ask, refuse and lie.

use std::net::SocketAddr;
use std::time::Duration;

use crate::harness::proxies::{Manner, TestProxy};
use crate::harness::{check_all, node, node_with, send_all, soon, target};
use sealtide_link::{ConnectError, DialError, ProxySettings, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const FAR: Duration = Duration::from_secs(30);

/// Greets and then gives everything back.
async fn greeter() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                tcp.write_all(b"hello\r\n\r\n").await?;
                let (mut read, mut write) = tcp.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    address
}

/// Settings that send loopback through the proxy at `address`.
fn by(scheme: &str, address: SocketAddr) -> ProxySettings {
    ProxySettings::new(&format!("{scheme}{address}"), "HTTPS_PROXY").through("*")
}

async fn reach(host: &str, port: u16, settings: &ProxySettings) -> Result<TcpStream, String> {
    let result = soon(connect(host, port, settings, Instant::now() + FAR)).await;
    result.map_err(|error| {
        assert!(ConnectError::of(&error).is_some());
        error.to_string()
    })
}

#[tokio::test]
async fn bytes_behind_the_answer_of_a_proxy_are_the_targets() {
    let echo = greeter().await;
    let (http, socks) =
        (TestProxy::http(Manner::Forwards, echo).await, TestProxy::socks5(Manner::Forwards, echo).await);
    for (scheme, proxy) in [("http://", &http), ("", &http), ("socks5://", &socks)] {
        // Names are the proxy's to resolve: these have no address here.
        for (host, port, asked) in [
            ("peer.invalid", 3, "peer.invalid:3"),
            ("peer.invalid", 4, "peer.invalid:4"),
            ("192.0.2.7", 5, "192.0.2.7:5"),
            ("2001:db8::7", 7443, "[2001:db8::7]:7443"),
        ] {
            let mut stream = reach(host, port, &by(scheme, proxy.address)).await.unwrap();
            assert_eq!(proxy.asked().last().unwrap(), asked);
            let mut greeting = [0; 9];
            soon(stream.read_exact(&mut greeting)).await.unwrap();
            assert_eq!(&greeting, b"hello\r\n\r\n", "{scheme}{host}");
            stream.write_all(b"there").await.unwrap();
            let mut echoed = [0; 5];
            soon(stream.read_exact(&mut echoed)).await.unwrap();
            assert_eq!(&echoed, b"there");
        }
    }
}

#[tokio::test]
async fn what_is_bypassed_never_reaches_the_proxy() {
    let echo = greeter().await;
    let proxy = TestProxy::http(Manner::Forwards, echo).await;
    let url = format!("http://{}", proxy.address);
    let plain = ProxySettings::new(&url, "HTTPS_PROXY");
    drop(reach("127.0.0.1", echo.port(), &plain).await.unwrap());
    drop(reach("localhost", echo.port(), &plain).await.unwrap());
    assert!(proxy.asked().is_empty(), "loopback goes straight");
    let named = plain.through(&format!("127.0.0.1:{}", echo.port()));
    drop(reach("127.0.0.1", echo.port(), &named).await.unwrap());
    assert_eq!(proxy.asked().len(), 1, "unless it is named");
}

#[tokio::test]
async fn credentials_are_given_and_errors_say_where_to_put_them() {
    let echo = greeter().await;
    let asks = Manner::Asks("me", "open:sesame");
    let http = TestProxy::http(asks.clone(), echo).await;
    let socks = TestProxy::socks5(asks, echo).await;
    for (scheme, proxy) in [("http", &http), ("socks5", &socks)] {
        let with =
            |user: &str| ProxySettings::new(&format!("{scheme}://{user}{}", proxy.address), "ALL_PROXY").through("*");
        drop(reach("peer.invalid", 1, &with("me:open%3Asesame@")).await.unwrap());
        for wrong in ["", "me:shut@", "you:open%3Asesame@"] {
            let error = reach("peer.invalid", 1, &with(wrong)).await.unwrap_err();
            assert!(error.contains(&format!("the proxy {scheme}://{} refused", proxy.address)), "{error}");
            assert!(error.contains("put the right USER:PASSWORD@ before the host in ALL_PROXY"), "{error}");
            assert!(!error.contains("shut") && !error.contains("sesame"), "{error}");
        }
    }
}

#[tokio::test]
async fn proxies_that_refuse_or_lie() {
    let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let answer = |text: &str| Manner::HangsUp(text.as_bytes().to_vec());
    let endless = Manner::Answers(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(9000)).into_bytes());
    for (manner, expected) in [
        (answer("HTTP/1.1 403 Not today\r\n\r\n"), "refused: 403 Not today"),
        (answer("HTTP/1.1 502 Bad\u{1b}[2J Gateway\r\n\r\n"), "no HTTP proxy"),
        (answer("HTTP/1.0 503 \r\n\r\n"), "refused: 503"),
        (answer("HTTP/1.1 101 Switching Protocols\r\n\r\n"), "refused: 101"),
        (
            answer("HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Negotiate x\r\n\r\n"),
            "407 No; it takes NTLM, Negotiate, and only Basic is supported",
        ),
        (answer("SSH-2.0-OpenSSH\r\n\r\n"), "no HTTP proxy: its answer is no HTTP"),
        (answer("HTTP/1.1 200 OK\r\n"), "closed the connection without an answer; see HTTPS_PROXY"),
        (answer(""), "closed the connection without an answer"),
        (endless, "its answer has no end"),
    ] {
        let proxy = TestProxy::http(manner.clone(), nowhere).await;
        let error = reach("192.0.2.1", 443, &by("http://", proxy.address)).await.unwrap_err();
        assert!(error.contains(expected) && !error.contains('\u{1b}'), "{manner:?}: {error}");
    }
    for (bytes, expected) in [
        (vec![5, 0xff], "it wants to know its user"),
        (vec![4, 0], "no SOCKS5 proxy"),
        (vec![5, 2], "no SOCKS5 proxy"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "no SOCKS5 proxy"),
        (vec![5], "closed the connection without an answer"),
        (vec![5, 0, 5, 2, 0, 1], "its rules do not allow this target"),
        (vec![5, 0, 5, 4, 0, 1], "the host is not reached from there"),
        (vec![5, 0, 5, 5, 0, 1], "the target refused"),
        (vec![5, 0, 5, 99, 0, 1], "code 99"),
        (vec![5, 0, 5, 0, 0, 9], "no SOCKS5 proxy"),
        (vec![5, 0, 5, 0, 0, 1, 1, 2], "closed the connection without an answer"),
    ] {
        let proxy = TestProxy::socks5(Manner::HangsUp(bytes.clone()), nowhere).await;
        let error = reach("192.0.2.1", 443, &by("socks5h://", proxy.address)).await.unwrap_err();
        assert!(error.contains(expected), "{bytes:?}: {error}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_or_silent_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let settings = by("http://me:sesame@", address);
    // The connection waits in the backlog: nobody ever answers.
    let error = connect("192.0.2.1", 443, &settings, Instant::now()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(error.to_string(), format!("the proxy http://{address} did not answer in time"));
    drop(listener);
    let error = reach("192.0.2.1", 443, &settings).await.unwrap_err();
    assert!(error.starts_with(&format!("the proxy http://{address} is not reached: ")), "{error}");
    assert!(error.ends_with("; see HTTPS_PROXY") && !error.contains("sesame"), "{error}");
    let error = reach("192.0.2.1", 443, &ProxySettings::new("https://proxy", "https_proxy")).await.unwrap_err();
    assert!(error.starts_with("https_proxy cannot be used: "), "{error}");
    for host in ["", "a b", "x\r\nHost: y", &"x".repeat(256)] {
        let error = reach(host, 443, &settings).await.unwrap_err();
        assert!(error.contains("neither a host name nor an address"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_through_proxies() {
    for scheme in ["http://", "socks5://"] {
        let door = node(1).await;
        let proxy = match scheme {
            "http://" => TestProxy::http(Manner::Asks("me", "pw"), door.address).await,
            _ => TestProxy::socks5(Manner::Asks("me", "pw"), door.address).await,
        };
        let url = format!("{scheme}me:pw@");
        let guest = node_with(2, |config| config.proxy = by(&url, proxy.address)).await;
        door.allow(&guest);
        guest.allow(&door);
        // An address of documentation: only the proxy knows where it leads.
        let addresses: Vec<SocketAddr> = vec!["192.0.2.1:7443".parse().unwrap()];
        let session = soon(guest.link.dial(target(door.id(), &addresses))).await.unwrap();
        assert_eq!(proxy.asked(), ["192.0.2.1:7443"]);
        let theirs = soon(door.link.accept()).await.unwrap();
        let channel = session.open(1, "bulk").unwrap();
        let sending = tokio::spawn(send_all(channel, 7, 200, 20_000));
        let channel = soon(theirs.accept_channel()).await.unwrap();
        soon(check_all(channel, 7, 200, 20_000)).await;
        soon(sending).await.unwrap();
        guest.link.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dial_says_which_proxy_refused() {
    let proxy =
        TestProxy::http(Manner::HangsUp(b"HTTP/1.1 403 Forbidden\r\n\r\n".to_vec()), "127.0.0.1:1".parse().unwrap())
            .await;
    let guest = node_with(1, |config| config.proxy = by("http://", proxy.address)).await;
    let peer = node(2).await;
    let error = soon(guest.link.dial(target(peer.id(), &["192.0.2.1:7443".parse().unwrap()]))).await.unwrap_err();
    assert!(matches!(error, DialError::Unreachable { .. }), "{error:?}");
    let expected = format!("192.0.2.1:7443: the proxy http://{} refused: 403 Forbidden", proxy.address);
    assert_eq!(error.to_string(), expected);
}
