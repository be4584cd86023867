//! Relays behind proxies: what ends their TLS must be vouched for where the address says so (bind 0), and ends the login where
//! it does not (bind 1).

use std::net::IpAddr;

use crate::harness::inspector::Inspector;
use crate::harness::relay::EvilRelay;
use crate::harness::{DialTarget, Node, check_all, doorless, key, send_all, soon, until};
use sealtide_identity::RelayHint;
use sealtide_link::{Admit, LinkConfig, Proxies, ProxySettings, Relay, RelayConfig, Roots, Session};

/// A relay whose nodes come through a proxy that ends their TLS.
async fn relay(bind0: bool, change: impl FnOnce(&mut RelayConfig)) -> Relay {
    let mut config = RelayConfig::new(key(80), Admit::Open);
    config.bind0 = bind0;
    change(&mut config);
    Relay::open(config, "127.0.0.1:0".parse().unwrap()).await.unwrap()
}

/// A node that dials everything through `proxy`, and believes its authority when `believes`.
fn behind(proxy: &Inspector, seed: u64, believes: bool) -> Node {
    doorless(seed, |config: &mut LinkConfig| {
        config.proxy = ProxySettings::new(&format!("http://{}", proxy.address), "HTTPS_PROXY");
        if believes {
            config.relay_roots = Some(Roots::read(pem(&proxy.root).as_bytes()).unwrap());
        }
    })
}

fn pem(der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

/// The certificate of the proxy is good for node.invalid and localhost.
fn hint(relay: &Relay, host: &str) -> RelayHint {
    RelayHint { relay: relay.id(), url: format!("wss://{host}:{}", relay.address().port()) }
}

/// A message each way.
async fn check_both(near: &Session, far: &Session) {
    let (there, back) = (near.open(3, "there").unwrap(), far.open(3, "back").unwrap());
    let (a, b) = (far.accept_channel().await.unwrap(), near.accept_channel().await.unwrap());
    tokio::join!(send_all(there, 1, 1, 10), check_all(a, 1, 1, 10), send_all(back, 2, 1, 10), check_all(b, 2, 1, 10));
}

async fn why_not(node: &Node) -> String {
    until("a login was tried", || node.link.relays()[0].why_not.is_some()).await;
    node.link.relays()[0].why_not.clone().unwrap()
}

/// Two nodes whose logins are not bound to their TLS talk over such a relay: the TLS of the peers lies inside, as ever.
// Proves: LK-101
#[tokio::test(flavor = "multi_thread")]
async fn bind0_with_a_certificate_for_the_name() {
    let relay = relay(true, |_| {}).await;
    let proxy = Inspector::start(relay.address(), true).await;
    let (a, b) = (behind(&proxy, 1, true), behind(&proxy, 2, true));
    a.allow(&b);
    b.allow(&a);
    let there = hint(&relay, "node.invalid");
    for node in [&a, &b] {
        node.link.use_relay_behind_proxy(&there, None);
        until("logged in", || node.link.relays()[0].up).await;
        assert_eq!(node.link.relays()[0].bind, 0, "status says so");
    }
    let target = DialTarget { node: b.id(), addresses: Vec::new(), relays: vec![there], invite: None };
    let ours = soon(a.link.dial(target)).await.unwrap();
    let theirs = soon(b.link.accept()).await.unwrap();
    let near = ours.open(3, "marker-in-the-name-of-a-channel").unwrap();
    let far = soon(theirs.accept_channel()).await.unwrap();
    soon(async { tokio::join!(send_all(near, 1, 50, 20_000), check_all(far, 1, 50, 20_000)) }).await;

    // What nodes tell each other has no place for the kind of relay, so these are not told; …
    assert!(ours.peer_relays().is_empty() && theirs.peer_relays().is_empty());
    let other = crate::harness::node_with(3, |_| {}).await;
    other.allow(&b);
    b.allow(&other);
    let straight = soon(b.dial(&other)).await;
    let far = soon(other.link.accept()).await.unwrap();
    soon(check_both(&straight, &far)).await;
    assert!(far.peer_relays().is_empty() && other.link.relays().is_empty(), "nothing is tried that cannot do");
    // … and whoever is there itself looks for the peer there, although it was told of no way.
    ours.close();
    soon(ours.closed()).await;
    soon(theirs.closed()).await;
    let untold = DialTarget { node: b.id(), addresses: Vec::new(), relays: Vec::new(), invite: None };
    let again = soon(a.link.dial(untold)).await.unwrap();
    assert_eq!(again.info().path, Some("relay"));

    let seen = proxy.seen();
    let marker = b"marker-in-the-name-of-a-channel";
    assert!(seen.len() > 200_000 && !seen.windows(marker.len()).any(|window| window == marker));
}

/// A certificate for another name, or of an authority that nobody named, ends it before a byte of a login.
// Proves: LK-101
#[tokio::test(flavor = "multi_thread")]
async fn bind0_wrong_name() {
    let relay = relay(true, |_| {}).await;
    let proxy = Inspector::start(relay.address(), true).await;
    for (seed, host, believes, told) in [
        (11, "other.invalid", true, "certificate not valid for name"),
        (12, "node.invalid", false, "no authority is named"),
    ] {
        let node = behind(&proxy, seed, believes);
        node.link.use_relay_behind_proxy(&hint(&relay, host), None);
        let why = why_not(&node).await;
        assert!(why.contains(told), "{why}");
    }
    // Somebody else's authority is named.
    let other = Inspector::start(relay.address(), true).await;
    let stranger = doorless(13, |config: &mut LinkConfig| {
        config.proxy = ProxySettings::new(&format!("http://{}", proxy.address), "HTTPS_PROXY");
        config.relay_roots = Some(Roots::read(pem(&other.root).as_bytes()).unwrap());
    });
    stranger.link.use_relay_behind_proxy(&hint(&relay, "node.invalid"), None);
    let why = why_not(&stranger).await;
    assert!(why.contains("invalid peer certificate"), "{why}");
    assert!(proxy.seen().is_empty(), "nothing was said inside");
    assert_eq!(relay.stats().logins, 0);
}

/// What ends the TLS on the way to a relay that expects none does not get a login, and no second try without the binding.
// Proves: LK-101, LK-19
#[tokio::test(flavor = "multi_thread")]
async fn bind0_no_fallback() {
    // One that writes down what it hears.
    let evil = EvilRelay::honest(key(81)).await;
    let proxy = Inspector::start(evil.address, true).await;
    let node = behind(&proxy, 21, true);
    node.link.use_relay(&RelayHint { relay: evil.hint.relay, url: "wss://node.invalid:1".to_owned() }, None);
    let why = why_not(&node).await;
    assert_eq!(node.link.relays()[0].bind, 1);
    // HELLO is 80 bytes: the head of the frame, then version, kind 3 and flags, of which none is set: bound.
    until("several tries", || evil.heard().len() >= 3 * 80).await;
    for hello in evil.heard().chunks(80) {
        assert_eq!(hello[8..12], [1, 3, 0, 0], "{why}");
    }
    assert_eq!(evil.logins(), 0);

    // A relay takes what it was configured for, and nothing else: straight logins where it expects none through proxies, …
    let bound = relay(false, |_| {}).await;
    let proxy = Inspector::start(bound.address(), true).await;
    let unbound = behind(&proxy, 22, true);
    unbound.link.use_relay_behind_proxy(&hint(&bound, "node.invalid"), None);
    why_not(&unbound).await;
    // … and the other way round.
    let behind_proxy = relay(true, |_| {}).await;
    let straight = doorless(23, |_| {});
    straight.link.use_relay(&hint(&behind_proxy, "127.0.0.1"), None);
    why_not(&straight).await;
    assert_eq!((bound.stats().logins, behind_proxy.stats().logins), (0, 0));
}

/// Where a node is seen behind a proxy is what a trusted one says, and what others say counts for nothing.
// Proves: LK-51
#[tokio::test(flavor = "multi_thread")]
async fn observed_addr_behind_a_proxy_is_what_a_trusted_one_says() {
    use tokio::io::AsyncWriteExt;
    for (trusted, seen) in [("127.0.0.1", "203.0.113.9:1"), ("198.51.100.7", "127.0.0.1")] {
        let trusted: IpAddr = trusted.parse().unwrap();
        let relay = relay(false, |config| {
            config.proxies = Proxies::new(move |peer, lines| {
                let said = lines.last().and_then(|line| line.parse().ok());
                (peer == trusted).then(|| said.unwrap_or(peer))
            });
        })
        .await;
        // A proxy that only adds a line to the first request, inside the TLS of the node: the test holds both ends of it.
        let config = crate::harness::raw::client(crate::harness::raw::hybrid(), None);
        let mut tls = crate::harness::raw::Raw::tls(relay.address(), config).await.unwrap();
        let request = crate::harness::raw::upgrade(sealtide_link::RELAY_PATH);
        let request = request.replace("Host: x\r\n", "Host: x\r\nX-Forwarded-For: 203.0.113.9\r\n");
        tls.write_all(request.as_bytes()).await.unwrap();
        let head = crate::harness::raw::read_head(&mut tls).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let raw = crate::harness::raw::Raw::new(tls, yawc::Role::Client);
        let hint = RelayHint { relay: relay.id(), url: String::new() };
        let mut login = soon(crate::harness::relay::RawLogin::over(raw, &hint, &key(30))).await.unwrap();
        let told = login.login.observed.unwrap().socket.to_string();
        assert!(told.starts_with(seen), "{told}");
        let heard = soon(login.hear()).await;
        let Some(sealtide_wire::relay::RelayFrame::Observed { address }) = heard else { panic!("{heard:?}") };
        assert_eq!(address.socket.to_string(), told, "and again as a frame");
    }
}
