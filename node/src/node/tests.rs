//! What tests of nodes begin with, and tests of how a dial that failed is told.

use std::path::PathBuf;
use std::time::Duration;

use super::*;

impl Node {
    /// A node with this home, which is made where there is none, and no setting of its own.
    pub(crate) fn new_at(home: impl Into<PathBuf>) -> Self {
        let home = Home::new(home.into());
        home.init().unwrap();
        Self::open(home, Config::defaults()).unwrap()
    }
}

/// Waits until something holds.
pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

#[test]
fn a_dial_that_another_node_may_have_taken_is_refused_and_an_overloaded_one_is_no_route() {
    let peer = NodeId::from_bytes([1; 32]);
    for (error, exit, code) in [
        (DialError::WrongPeer, Exit::Refused, "wrong_peer"),
        (DialError::NoAnswer, Exit::Refused, "no_answer"),
        (DialError::Refused, Exit::Refused, "refused"),
        (DialError::Busy, Exit::NoRoute, "no_route"),
        (DialError::Timeout, Exit::NoRoute, "no_route"),
    ] {
        let failure = dial_failure(&peer, &error);
        assert_eq!((failure.exit, failure.code.as_str()), (exit, code), "{error}");
    }
    let failure = dial_failure(&peer, &DialError::NoAnswer);
    assert!(failure.message.contains("another node answers there, or it is overloaded"), "{}", failure.message);
}
