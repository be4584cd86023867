//! A proxy that opens TLS stands on the way: a direct path does not come about, and the error says why.

use std::net::SocketAddr;

use crate::harness::inspector::{AUTHORITY, Inspector};
use crate::harness::{node, node_with, soon, target};
use sealtide_link::{DialError, ProbeFailure, ProxySettings};

// Proves: LK-68
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inspected_direct_path_is_refused_and_called_so() {
    for keeps_chain in [false, true] {
        let door = node(1).await;
        let inspector = Inspector::start(door.address, keeps_chain).await;
        let proxy = ProxySettings::new(&format!("http://{}", inspector.address), "HTTPS_PROXY");
        let guest = node_with(2, |config| config.proxy = proxy).await;
        door.allow(&guest);
        guest.allow(&door);
        let there: SocketAddr = "192.0.2.1:7443".parse().unwrap();
        let error = soon(guest.link.dial(target(door.id(), &[there]))).await.unwrap_err();
        let DialError::Inspected { issuer, tried } = &error else { panic!("{error:?}") };
        assert!(issuer.contains(AUTHORITY), "{issuer}");
        assert_eq!(tried.len(), 1);
        assert!(error.to_string().starts_with("TLS is inspected on the way"), "{error}");
        // It ends before anything of the node is said: the other end never sees a connection of ours.
        assert!(inspector.seen().is_empty());
        assert!(door.link.sessions().is_empty());
        let probe = soon(guest.link.probe("192.0.2.1", 7443)).await;
        assert!(probe.connected.is_some() && probe.secured.is_none(), "{probe:?}");
        assert!(matches!(&probe.failure, Some(ProbeFailure::Inspected { issuer }) if issuer.contains(AUTHORITY)));

        // The same way without inspection: an address that is not proxied.
        soon(guest.link.dial(target(door.id(), &[door.address]))).await.unwrap();
        let probe = soon(guest.link.probe("127.0.0.1", door.address.port())).await;
        assert!(probe.upgraded.is_some() && probe.failure.is_none() && probe.valid_s.is_some(), "{probe:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_that_is_not_inspected_suffices() {
    let door = node(1).await;
    let inspector = Inspector::start(door.address, true).await;
    let proxy = ProxySettings::new(&format!("http://{}", inspector.address), "HTTPS_PROXY");
    let guest = node_with(2, |config| config.proxy = proxy).await;
    door.allow(&guest);
    guest.allow(&door);
    let there: SocketAddr = "192.0.2.1:7443".parse().unwrap();
    soon(guest.link.dial(target(door.id(), &[there, door.address]))).await.unwrap();
}
