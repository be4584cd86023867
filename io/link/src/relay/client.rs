//! The logins of a node at its relays: kept up, and opened circuits over. Spec: link C.5.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sealtide_identity::{InviteSecret, LinkAddress, NodeId, RelayHint};
use sealtide_wire::relay::{GoAwayCode, RelayClient};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::circuit::Circuit;
use super::live::Live;
use super::login::log_in;
use super::pump::{Pump, Told};
use crate::address;
use crate::backoff::Backoff;
use crate::clock::{SystemEntropy, random_below};
use crate::limits::{Gate, Limits};
use crate::node::Node;
use crate::path::{Path, PathError};
use crate::pipe::{Pipe, Remote};

/// Nodes whose relay broke off come back spread over this time, so that they do not come all at once.
const SPREAD_MS: u64 = 6_000;
/// After being sent away for a reason that time alone does not heal.
const SENT_AWAY: Duration = Duration::from_secs(60);
/// Logins at relays that peers named, at most.
const BORROWED_MAX: usize = 64;
/// Of these, logins that are held though nobody uses them, at most: the rest is for dials.
const HELD_MAX: usize = BORROWED_MAX / 2;
/// Circuits of one login, opened by peers or by guests, that have not proved anything.
const UNPROVEN_MAX: usize = 64;
/// How long such a login is kept while nobody holds it and no dial and no circuit uses it.
const BORROWED_FOR: Duration = Duration::from_secs(300);

/// A login as status shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayState {
    /// The relay.
    pub relay: RelayHint,
    /// Whether this node is logged in now.
    pub up: bool,
    /// Why not, when it is not.
    pub why_not: Option<String>,
    /// Where the relay sees this node.
    pub observed: Option<LinkAddress>,
    /// Whether the login is bound to its TLS connection: 1 is yes, 0 is a relay whose TLS ends in a proxy.
    pub bind: u8,
}

/// All accounts of a node.
#[derive(Default)]
pub(crate) struct Accounts {
    all: Mutex<Vec<Arc<Account>>>,
    /// What each relay is asked to let in: ids with seconds; zeros for guests.
    allows: Mutex<BTreeMap<NodeId, u32>>,
    /// Accounts that stay though no dial and no circuit uses them.
    held: Mutex<Vec<Use>>,
}

/// One relay that this node logs in at: an own one, to stay, or one that a peer or a ticket named, for as long as it is used.
pub(crate) struct Account {
    pub(super) relay: RelayHint,
    is_own: bool,
    /// Dials under way, circuits, and whether it is held.
    uses: watch::Sender<usize>,
    /// An own account took the place of this one, or another relay did.
    let_go: Notify,
    /// Its TLS ends in a proxy.
    bind0: bool,
    token: Option<InviteSecret>,
    live: watch::Sender<Option<Arc<Live>>>,
    status: Mutex<(Option<String>, Option<LinkAddress>)>,
    /// Where the relay sees the listening port of this node, as far as that is believed.
    mapped: Mutex<Option<LinkAddress>>,
    /// The places of circuits that have not proved anything. Its own ones: a relay can make up any number of openers.
    peers: Arc<Gate>,
    /// Those of guests, who are strangers, so that they stand in no peer's way.
    guests: Arc<Gate>,
}

impl Accounts {
    /// Logs in at `relay` and stays so. A login there that a peer or a ticket led to gives way: its URL may be a wrong one, and it has no
    /// token.
    pub(crate) fn stay(&self, node: &Arc<Node>, relay: &RelayHint, bind0: bool, token: Option<InviteSecret>) {
        let mut all = self.all();
        let there = |account: &Account| account.relay.relay == relay.relay;
        if all.iter().any(|account| account.is_own && there(account)) {
            return;
        }
        all.extract_if(.., |account| there(account)).for_each(|account| account.let_go.notify_one());
        all.push(Account::start(node, relay, bind0, token, true));
    }

    /// The account for a dial over `relay`: the own one there, or one that is logged in there by whatever URL, or the one by this URL,
    /// made and started when there is none. `None`: all that peers may name are in use.
    fn borrow(&self, node: &Arc<Node>, relay: &RelayHint) -> Option<Use> {
        let mut all = self.all();
        let proven = |account: &Account| account.relay.relay == relay.relay && (account.is_own || account.is_up());
        let known = all.iter().find(|account| proven(account)).or_else(|| all.iter().find(|a| a.relay == *relay));
        if let Some(known) = known {
            return Some(Use::of(known));
        }
        if all.iter().filter(|account| !account.is_own).count() >= BORROWED_MAX {
            let spare = |account: &&Arc<Account>| !account.is_own && !account.is_used();
            let at = all.iter().position(|account| spare(&account) && !account.is_up());
            let at = at.or_else(|| all.iter().position(|account| spare(&account)))?;
            all.remove(at).let_go.notify_one();
        }
        let account = Account::start(node, relay, false, None, false);
        all.push(account.clone());
        Some(Use::of(&account))
    }

    /// Stays logged in at these relays, whether anything uses them or not; those that were held before and are none of them may go.
    pub(crate) fn hold(&self, node: &Arc<Node>, relays: &[RelayHint]) {
        let held = relays.iter().take(HELD_MAX).filter_map(|relay| self.borrow(node, relay)).collect();
        let before = std::mem::replace(&mut *self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner()), held);
        // Now that the new ones are held: what is among both was never without.
        drop(before);
    }

    /// The relays where this node is logged in because peers named them.
    pub(crate) fn borrowed(&self) -> Vec<RelayHint> {
        self.list().iter().filter(|account| !account.is_own).map(|account| account.relay.clone()).collect()
    }

    /// Takes an account out that nobody uses. False: somebody does after all.
    fn give_back(&self, unused: &Arc<Account>) -> bool {
        // Uses begin under this lock.
        let mut all = self.all();
        if unused.is_used() {
            return false;
        }
        all.retain(|account| !Arc::ptr_eq(account, unused));
        true
    }

    /// Whether another account is logged in at the relay of `account`. Two would end each other's login again and again.
    fn is_elsewhere(&self, account: &Arc<Account>) -> bool {
        self.all().iter().any(|a| a.relay.relay == account.relay.relay && !Arc::ptr_eq(a, account) && a.is_up())
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Account>>> {
        self.all.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn list(&self) -> Vec<Arc<Account>> {
        self.all().clone()
    }

    /// The relays that this node is logged in at now and tells its peers of: own ones, for what one peer names is not to be passed on to
    /// others. Not those behind proxies: what a peer tells has no place for that, so they would be taken for others.
    // Spec: LK-101
    pub(crate) fn told(&self) -> Vec<RelayHint> {
        self.up(false)
    }

    /// The relays behind proxies that this node is logged in at now. A peer that is there too does not tell of them.
    pub(crate) fn behind_proxies(&self) -> Vec<RelayHint> {
        self.up(true)
    }

    fn up(&self, bind0: bool) -> Vec<RelayHint> {
        let all = self.list();
        let up = all.iter().filter(|account| account.is_own && account.bind0 == bind0 && account.is_up());
        up.map(|account| account.relay.clone()).collect()
    }

    /// Where a ticket may say that this node is met: its own relays, then others over which it is met now.
    pub(crate) fn meeting_points(&self) -> Vec<RelayHint> {
        let (own, borrowed): (Vec<_>, Vec<_>) = self.list().into_iter().partition(|account| account.is_own);
        let met = borrowed.into_iter().filter(|account| account.is_up() && account.is_used());
        own.into_iter().chain(met).map(|account| account.relay.clone()).collect()
    }

    /// Where relays see the listening port of this node; without doubles.
    pub(crate) fn mapped(&self) -> Vec<LinkAddress> {
        let seen = self.list().into_iter().filter_map(|account| account.mapped());
        seen.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    pub(crate) fn states(&self) -> Vec<RelayState> {
        let state = |account: &Arc<Account>| {
            let up = account.is_up();
            let (why_not, observed) = account.status.lock().unwrap_or_else(|p| p.into_inner()).clone();
            RelayState {
                relay: account.relay.clone(),
                up,
                why_not: why_not.filter(|_| !up),
                observed,
                bind: u8::from(!account.bind0),
            }
        };
        self.list().iter().map(state).collect()
    }

    /// Whom the relays are to let in for this node, from now on and at every login.
    pub(crate) fn set_allows(&self, allows: BTreeMap<NodeId, u32>) {
        let gone: Vec<_> = {
            let mut present = self.allows();
            let old = std::mem::replace(&mut *present, allows.clone());
            old.into_keys().filter(|id| !allows.contains_key(id)).collect()
        };
        for account in self.list() {
            let Some(live) = account.live.borrow().clone() else { continue };
            let mut core = live.core();
            // First who is let in: a guest that becomes a peer must not lose its login in between.
            allows.iter().for_each(|(id, seconds)| core.client.allow(*id, *seconds));
            gone.iter().for_each(|id| core.client.allow(*id, 0));
            drop(core);
            live.pump.wake();
        }
    }

    /// Whether strangers may open circuits to this node: an invite lives.
    pub(super) fn expects_guests(&self) -> bool {
        self.allows().contains_key(&NodeId::from_bytes([0; 32]))
    }

    fn allows(&self) -> MutexGuard<'_, BTreeMap<NodeId, u32>> {
        self.allows.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Account {
    fn start(node: &Arc<Node>, relay: &RelayHint, bind0: bool, token: Option<InviteSecret>, is_own: bool) -> Arc<Self> {
        let gate = || Gate::new(Limits { unproven_total: UNPROVEN_MAX, ..node.limits });
        let account = Arc::new(Self {
            relay: relay.clone(),
            is_own,
            uses: watch::Sender::new(0),
            let_go: Notify::new(),
            bind0,
            token,
            live: watch::Sender::new(None),
            status: Mutex::default(),
            mapped: Mutex::default(),
            peers: gate(),
            guests: gate(),
        });
        tokio::spawn(keep(node.clone(), account.clone()));
        account
    }

    /// Where the circuits of somebody wait until they have proved who that is.
    pub(super) fn gate(&self, is_peer: bool) -> &Arc<Gate> {
        if is_peer { &self.peers } else { &self.guests }
    }

    fn is_up(&self) -> bool {
        self.live.borrow().is_some()
    }

    fn is_used(&self) -> bool {
        *self.uses.borrow() > 0
    }

    pub(super) fn set_status(&self, why_not: Option<String>, observed: Option<LinkAddress>) {
        *self.status.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = (why_not, observed);
    }

    pub(super) fn mapped(&self) -> Option<LinkAddress> {
        *self.mapped.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn set_mapped(&self, seen: Option<LinkAddress>) {
        *self.mapped.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = seen;
    }

    /// The login, waited for.
    async fn login(&self) -> Option<Arc<Live>> {
        let mut live = self.live.subscribe();
        live.wait_for(Option::is_some).await.ok().and_then(|live| live.clone())
    }
}

/// Somebody who needs an account: a dial, a circuit, or whoever told others to come there.
pub(super) struct Use(Arc<Account>);

impl Use {
    pub(super) fn of(account: &Arc<Account>) -> Self {
        account.uses.send_modify(|uses| *uses += 1);
        Self(account.clone())
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.0.uses.send_modify(|uses| *uses -= 1);
    }
}

/// A circuit to `peer` and the TLS of a path over it.
pub(crate) async fn reach(
    node: Arc<Node>,
    relay: RelayHint,
    peer: NodeId,
    delay: Duration,
) -> (Remote, Result<Path, PathError>) {
    let remote = Remote::Relay { relay: relay.relay };
    sleep(delay).await;
    let path = async {
        let in_use = || PathError::Io(io::Error::other("as many relays as this node logs in at for peers are in use"));
        let used = node.relays.borrow(&node, &relay).ok_or_else(in_use)?;
        let account = used.0.clone();
        let gone = || PathError::Io(io::Error::other("the relay lets no circuit through"));
        let deadline = node.limits.handshake_deadline;
        let live = timeout(deadline, account.login()).await.ok().flatten().ok_or_else(|| {
            let why = account.status.lock().unwrap_or_else(|p| p.into_inner()).0.clone();
            PathError::Io(io::Error::other(why.unwrap_or_else(|| "no login at the relay".to_owned())))
        })?;
        let number = live.core().client.open(peer).ok_or_else(gone)?;
        // From here on the circuit ends when it is dropped.
        let circuit = Circuit::new(live.clone(), number, Some(used));
        live.pump.wake();
        timeout(deadline, poll_fn(|cx| live.poll_open(cx, number))).await.map_err(|_| gone())??;
        let shown = node.credentials.current(node.clock.now());
        let path = Path::dial(Pipe::other(circuit), remote, &shown).await?;
        node.counters.tls_pq.add(1);
        Ok(path)
    };
    (remote, path.await)
}

/// Keeps one login up until the link is shut down, or a borrowed one is not used any more.
async fn keep(node: Arc<Node>, account: Arc<Account>) {
    tokio::select! {
        () = stay_logged_in(&node, &account) => {}
        () = unused(&node, &account) => {}
        () = account.let_go.notified() => {}
    }
    account.live.send_replace(None);
    account.set_mapped(None);
}

/// Completes when a borrowed account has not been used for a while, and is taken out.
async fn unused(node: &Arc<Node>, account: &Arc<Account>) {
    if account.is_own {
        return std::future::pending().await;
    }
    let mut uses = account.uses.subscribe();
    loop {
        uses.wait_for(|uses| *uses == 0).await.ok();
        let unused = timeout(BORROWED_FOR, uses.wait_for(|uses| *uses > 0)).await.is_err();
        if unused && node.relays.give_back(account) {
            return;
        }
    }
}

async fn stay_logged_in(node: &Arc<Node>, account: &Arc<Account>) {
    let mut backoff = Backoff::new();
    loop {
        let work = async {
            if node.relays.is_elsewhere(account) {
                account.set_status(Some("this node is logged in there by another URL".to_owned()), None);
                return backoff.next_wait(&mut SystemEntropy);
            }
            let login = timeout(
                node.limits.handshake_deadline,
                log_in(node, &account.relay, account.bind0, account.token.clone()),
            );
            let (path, login, listens) = match login.await {
                Ok(Ok(done)) => done,
                Ok(Err(error)) => {
                    tracing::info!(relay = account.relay.relay.short(), "link: no login at a relay: {error}");
                    account.set_status(Some(error.to_string()), None);
                    return backoff.next_wait(&mut SystemEntropy);
                }
                Err(_) => {
                    account.set_status(Some("it did not answer in time".to_owned()), None);
                    return backoff.next_wait(&mut SystemEntropy);
                }
            };
            let Some(limits) = login.limits else { return SENT_AWAY };
            backoff.reset();
            account.set_status(None, login.observed);
            let seen_from = path.remote.direct().filter(|_| listens).map(|remote| remote.ip());
            let seen = login.observed.zip(seen_from);
            account.set_mapped(seen.and_then(|(seen, relay)| address::observed_by_relay(seen, relay)));
            let mut client = RelayClient::new(limits);
            let live = {
                // Held until the login is seen, so that no change of it passes by unheard.
                let allows = node.relays.allows();
                allows.iter().for_each(|(id, seconds)| client.allow(*id, *seconds));
                let live = Arc::new(Live::new(client));
                account.live.send_replace(Some(live.clone()));
                live
            };
            node.tell_addresses();
            tracing::info!(relay = account.relay.relay.short(), "link: logged in at a relay");
            let mut pump =
                Pump::new(node.clone(), account.clone(), live, path, Told { ping_ms: limits.ping_ms, seen_from });
            let result = poll_fn(|cx| pump.poll(cx)).await;
            let why = match (pump.go_away, result) {
                (Some((code, ..)), _) => sent_away(code).to_owned(),
                (None, Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    "the connection to the relay was cut".to_owned()
                }
                (None, Err(error)) => error.to_string(),
                (None, Ok(())) => "the relay ended the login".to_owned(),
            };
            tracing::info!(relay = account.relay.relay.short(), "link: login at a relay over: {why}");
            account.live.send_replace(None);
            account.set_status(Some(why), None);
            away(pump.go_away)
        };
        let wait = tokio::select! {
            wait = work => wait,
            () = node.stopped() => Duration::ZERO,
        };
        account.live.send_replace(None);
        account.set_mapped(None);
        tokio::select! {
            () = sleep(wait) => {}
            () = node.stopped() => return,
        }
        if *node.stop.borrow() {
            return;
        }
    }
}

/// What a relay means by sending a node away.
const fn sent_away(code: GoAwayCode) -> &'static str {
    match code {
        GoAwayCode::Draining => "the relay stops for a while",
        GoAwayCode::Replaced => "another login with the key of this node took over",
        GoAwayCode::DuplicateIdentity => "two machines log in with the key of this node",
        GoAwayCode::NotAdmitted => "the relay lets this node in no longer",
    }
}

/// How long to stay away after a login that is over. A relay that breaks off loses all its nodes at once, and must not get
/// them back at once.
// Spec: LK-63
fn away(go_away: Option<(GoAwayCode, Duration, Instant)>) -> Duration {
    match go_away {
        Some((GoAwayCode::Draining, wait, at)) => (at + wait).saturating_duration_since(Instant::now()),
        Some((_, wait, _)) => wait.max(SENT_AWAY),
        None => Duration::from_millis(random_below(SPREAD_MS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a thousand nodes do when their relay is gone from one moment to the next.
    // Proves: LK-63
    #[tokio::test(start_paused = true)]
    async fn nodes_of_a_relay_that_broke_off_come_back_one_after_the_other() {
        let mut when: Vec<_> = (0..1_000).map(|_| away(None)).collect();
        when.sort_unstable();
        assert!(when[999] - when[0] >= Duration::from_secs(5), "{when:?}");
        let busiest = when.iter().map(|at| when.iter().filter(|b| (*at..*at + BUSY).contains(*b)).count()).max();
        assert!(busiest < Some(60), "{busiest:?} within {BUSY:?}");
        let now = Instant::now();
        let told = away(Some((GoAwayCode::Draining, Duration::from_secs(3), now)));
        assert_eq!(told, Duration::from_secs(3), "who was told when comes then");
        assert_eq!(away(Some((GoAwayCode::NotAdmitted, Duration::ZERO, now))), SENT_AWAY);
    }

    const BUSY: Duration = Duration::from_millis(100);
}
