//! What must never be seen in logs: one process, one log, all secrets of a busy link searched for in it.

use std::io;
use std::sync::{Arc, Mutex};

use crate::harness::{node, soon};
use bytes::Bytes;
use sealtide_identity::InviteSecret;
use sealtide_link::DialError;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The ways in which bytes get into a log.
fn forms(secret: &[u8]) -> Vec<String> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{secret:?}");
    vec![hex.to_uppercase(), hex, list[1..list.len() - 1].to_owned()]
}

// Proves: LK-18, LK-68
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_hygiene() {
    let captured = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(captured.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let (a, b, stranger) = (node(1).await, node(2).await, node(3).await);
    let secret = [0xb7; 32];
    let invite = InviteSecret::from_bytes(secret);
    b.door.invites.lock().unwrap().insert([3; 16], (invite.clone(), 1));
    let mut target = b.target();
    target.invite = Some(([3; 16], invite));
    tracing::info!("{:?} {:?} {:?}", target, a.link, a.key);
    let session = soon(a.link.dial(target)).await.unwrap();
    tracing::info!("{session:?}");
    let theirs = soon(b.link.accept()).await.unwrap();
    let channel = session.open(1, "notes").unwrap();
    channel.send(Bytes::from_static(b"CONTENT-OF-A-FILE")).await.unwrap();
    let other = soon(theirs.accept_channel()).await.unwrap();
    assert_eq!(soon(other.recv()).await.unwrap().unwrap(), "CONTENT-OF-A-FILE");
    tracing::info!("{channel:?} {:?}", session.info());
    let refused = soon(stranger.link.dial(b.target())).await.unwrap_err();
    assert!(matches!(refused, DialError::Refused));
    tracing::warn!("{refused}");
    session.close();
    soon(session.closed()).await;

    let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("session open") && log.contains("session over"), "the log is the real one");
    let mut secrets = vec![secret.to_vec(), session.binding().to_vec(), b"CONTENT-OF-A-FILE".to_vec()];
    for seed in 1..=3 {
        let seed = sealtide_crypto::Seed::generate(&mut sealtide_crypto::SeededEntropy::new(seed));
        secrets.push(seed.expose().to_vec());
    }
    for secret in &secrets {
        for form in forms(secret) {
            assert!(!log.contains(&form), "a secret in the log: {form}");
        }
    }
    assert!(!log.contains("CONTENT-OF-A-FILE"));
    for node in [&a, &b, &stranger] {
        assert!(!log.contains(&node.id().to_string()), "ids are shortened");
    }
    assert!(log.contains(&b.id().short()));
    assert!(!log.contains(" remote=127.0.0.1"), "addresses are masked");
}
