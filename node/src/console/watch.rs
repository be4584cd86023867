//! What changed, by topic. Some of it is told by events; the rest is found by a look twice a second, as long as somebody
//! watches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealtide_crypto::sha256;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::commands::status;
use crate::control::Host;
use crate::engine::Event;
use crate::gateway::{APP_KIND, Desk};
use crate::node::Node;

/// How often it is looked …
const EVERY: Duration = Duration::from_millis(500);
/// … where that is cheap: it takes this part of the time at most.
const LOOK_PART: u32 = 20;
/// A look may hang for once, and what the next ones find is waited for.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Topics that are not of one space.
const TOPICS: [&str; 7] = ["status", "sagas", "links", "audit", "keys", "releases", "conflicts"];

/// Every topic there is.
pub(super) fn all(host: &Host) -> Vec<Arc<str>> {
    let spaces = match host {
        Host::Node(node) => node.spaces().iter().map(|space| node.label(space)).collect(),
        Host::Gateway(_) => Vec::new(),
    };
    TOPICS.into_iter().map(Arc::from).chain(spaces.iter().map(|space| files(space))).collect()
}

fn files(space: &str) -> Arc<str> {
    format!("files:{space}").into()
}

/// Tells of changes until the host stops.
pub(super) fn begin(host: &Host, topics: &broadcast::Sender<Arc<str>>) {
    if let Host::Node(node) = host {
        tokio::spawn(tell_events(node.clone(), topics.clone()));
    }
    tokio::spawn(look(host.clone(), topics.clone()));
}

async fn tell_events(node: Node, topics: broadcast::Sender<Arc<str>>) {
    let (mut events, mut stop) = (node.engine().subscribe(), node.stopping());
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = stop.wait_for(|stopped| *stopped) => return,
        };
        if topics.receiver_count() == 0 {
            continue;
        }
        let tell = |topic: &str| drop(topics.send(topic.into()));
        match event {
            Ok(Event::Changed { space, timelines, .. }) if !timelines.is_empty() => {
                if node.known().label(&space).is_some_and(|label| label.kind == APP_KIND) {
                    tell("keys");
                }
                drop(topics.send(files(&node.label(&space))));
                // Releases are frames of a space like any other.
                tell("releases");
                tell("status");
            }
            Ok(Event::SagaBegan { .. } | Event::SagaEnded(_) | Event::Progress(_)) => tell("sagas"),
            Ok(Event::PeerReady(_) | Event::PeerGone(_)) => {
                tell("links");
                tell("status");
            }
            Ok(_) => tell("status"),
            Err(RecvError::Lagged(_)) => {
                all(&Host::Node(node.clone())).into_iter().for_each(|topic| drop(topics.send(topic)))
            }
            Err(RecvError::Closed) => return,
        }
    }
}

async fn look(host: Host, topics: broadcast::Sender<Arc<str>>) {
    let mut stop = host.stopping();
    let mut pause = Duration::ZERO;
    let mut known: BTreeMap<&'static str, [u8; 32]> = BTreeMap::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stopped| *stopped) => return,
        }
        pause = EVERY;
        if topics.receiver_count() == 0 {
            // Whoever comes next is told everything.
            known.clear();
            continue;
        }
        let (seen, began) = (host.clone(), Instant::now());
        // It may read every document of a space.
        let Ok(marks) = tokio::task::spawn_blocking(move || marks(&seen)).await else { continue };
        pause = pause_after(began.elapsed());
        // The first look tells of everything: it may have changed since whoever watches asked.
        for (topic, mark) in marks {
            if known.insert(topic, mark) != Some(mark) {
                drop(topics.send(topic.into()));
            }
        }
    }
}

/// How long nobody looks after a look that took so long.
fn pause_after(took: Duration) -> Duration {
    EVERY.max((took * (LOOK_PART - 1)).min(PAUSE_MAX))
}

/// What each topic looks like now.
fn marks(host: &Host) -> Vec<(&'static str, [u8; 32])> {
    let of = |text: String| sha256(text.as_bytes());
    let mut marks = vec![("audit", of(format!("{:?}", host.audit().position())))];
    let of_desk = |desk: &Desk| of(format!("{:?}", (desk.epoch(), desk.app_version().1, desk.signatures())));
    match host {
        Host::Node(node) => {
            let status = status::status(node).map(still).unwrap_or_default();
            let conflicts: Vec<&Value> =
                status["spaces"].as_array().into_iter().flatten().map(|space| &space["conflicts"]).collect();
            marks.push(("conflicts", of(format!("{conflicts:?}"))));
            marks.push(("status", of(status.to_string())));
            marks.push(("links", of(format!("{:?}", node.recent().links_mark()))));
            marks.extend(node.open_desk().map(|desk| ("keys", of_desk(&desk))));
        }
        Host::Gateway(gateway) => marks.push(("keys", of_desk(gateway.desk()))),
    }
    marks
}

/// A status without what moves by itself: that is the topic of links.
fn still(mut status: Value) -> Value {
    for link in status["links"].as_array_mut().into_iter().flatten() {
        for name in ["rtt_ms", "age_s", "bytes_in", "bytes_out", "punches"] {
            link.as_object_mut().into_iter().for_each(|link| drop(link.remove(name)));
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_takes_a_small_part_of_the_time_however_long_it_is() {
        assert_eq!(pause_after(Duration::from_millis(20)), EVERY);
        assert_eq!(pause_after(Duration::from_secs(1)), Duration::from_secs(19), "one second of twenty");
        assert_eq!(pause_after(Duration::from_secs(60)), PAUSE_MAX);
    }
}
