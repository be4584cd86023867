//! Plain counters of everything a link does. Spec: link C.12.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that go down again.
const GAUGES: [&str; 3] = ["sessions", "paths", "bytes_held"];

/// One figure for `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSample {
    /// `sealtide_link_…`.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Whether it is a gauge.
    pub goes_down: bool,
    /// The number since the start, or now.
    pub value: u64,
}

macro_rules! counters {
    ($(#[doc = $help:literal] $name:ident),* $(,)?) => {
        /// Counters since the link was made, as plain numbers.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct LinkMetrics {
            $(#[doc = $help] pub $name: u64,)*
        }

        impl LinkMetrics {
            /// Every number with the name and the help text that it has in `/metrics`.
            pub fn samples(&self) -> Vec<LinkSample> {
                vec![$(LinkSample {
                    name: concat!("sealtide_link_", stringify!($name)),
                    help: $help.trim_ascii().trim_end_matches('.'),
                    goes_down: GAUGES.contains(&stringify!($name)),
                    value: self.$name,
                },)*]
            }
        }

        /// The live counters.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn read(&self) -> LinkMetrics {
                LinkMetrics { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// TCP connections accepted by listeners.
    accepted,
    /// Accepted connections dropped at once: too many of one source in a short time.
    rejected_rate,
    /// Accepted connections that had to make room for newer ones before they passed the knock.
    evicted,
    /// TLS handshakes that failed or did not end in time.
    tls_failed,
    /// TLS handshakes finished with the post-quantum group; there is no other.
    tls_pq,
    /// Requests answered with 404.
    not_found,
    /// HELLOs with a wrong knock.
    wrong_knocks,
    /// Proofs that did not verify.
    bad_proofs,
    /// Handshakes answered late because their source had failed too often.
    slowed,
    /// Handshakes turned away because the processor was busy.
    busy,
    /// Full handshakes that led to a session, dialled by this node.
    handshakes_dialled,
    /// Full handshakes that led to a session, accepted by this node.
    handshakes_accepted,
    /// Peers refused after proof.
    refused,
    /// Handshakes that failed in another way, timeouts included.
    handshakes_failed,
    /// Handshakes given up because the peer's of the same time goes first.
    duplicates,
    /// Dials that reached nobody.
    unreachable,
    /// Sessions open now.
    sessions,
    /// Sessions that were replaced by a newer one of the same peer.
    sessions_replaced,
    /// Sessions that ended without a path for too long, or that the peer had forgotten.
    sessions_lost,
    /// Sessions that went on after a full handshake.
    sessions_continued,
    /// Paths of all sessions now.
    paths,
    /// Re-handshakes that led to a path, dialled by this node.
    rehandshakes_dialled,
    /// Re-handshakes that led to a path, accepted by this node.
    rehandshakes_accepted,
    /// Microseconds that the messages of re-handshakes took that led to a path, dialled by this node.
    rehandshake_us,
    /// Re-handshakes of this node that led to no path.
    rehandshakes_failed,
    /// Re-handshakes of peers that this node did not agree to.
    rehandshakes_rejected,
    /// Attempts to meet a peer through translators, announced by this node or by the peer.
    punches,
    /// Times a session changed the path that carries it.
    path_switches,
    /// Times a session was left without a path.
    suspensions,
    /// Certificates made after the first.
    certificates,
    /// Numbered frames sent once more after a path was lost or left.
    frames_retransmitted,
    /// Numbered frames that had arrived before; they are dropped.
    frames_duplicate,
    /// Numbered frames sent, each counted once however often it was sent again.
    frames_numbered,
    /// Numbered frames taken in, in order and each once.
    frames_delivered,
    /// Bytes of link frames sent.
    bytes_sent,
    /// Bytes of link frames received.
    bytes_received,
    /// Link frames sent.
    frames_sent,
    /// Link frames received.
    frames_received,
    /// Received bytes that readers have not released.
    bytes_held,
}

/// One number that only grows, or a gauge when `sub` is used.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
