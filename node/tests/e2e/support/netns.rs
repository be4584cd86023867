//! Machines in network namespaces of this kernel: two households behind their routers, and the internet between them.
//!
//! ```text
//! A ── gateA ── net ── gateB ── B        net can be a machine too: a relay stands there
//! ```
//!
//! IPv4 and IPv6 everywhere; a gate that translates does so for IPv4, as they do. Needs root, `ip` and `iptables`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// What the router of a household does with addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// It routes: the machine has a public address.
    Open,
    /// It translates, keeps the port where it can, and lets nothing in that was not asked for.
    Translating,
    /// As [`Gate::Translating`], and answers by silence whoever knocks unasked, or …
    TranslatingSilently,
    /// … by a reset.
    TranslatingWithResets,
    /// As [`Gate::TranslatingSilently`], with a port of its own choice for each destination.
    TranslatingAtRandom,
}

/// The namespaces of one test; they go when this is dropped.
pub(crate) struct Net {
    prefix: String,
    /// The wire of B to the internet, where it takes its time.
    far: Option<Child>,
}

/// One of the two households.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    A,
    B,
}

impl Side {
    const fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::A => 1,
            Self::B => 2,
        }
    }

    /// The network between gate and internet.
    const fn outside(self) -> &'static str {
        match self {
            Self::A => "198.51.100",
            Self::B => "203.0.113",
        }
    }
}

/// Namespaces of one process are told apart by number.
static COUNT: AtomicU32 = AtomicU32::new(0);

impl Net {
    /// Both households with their gates. `None`, and a line that says why, where namespaces cannot be made.
    pub(crate) fn new(gate_a: Gate, gate_b: Gate) -> Option<Self> {
        Self::apart(gate_a, gate_b, 0)
    }

    /// As [`Net::new`]; what goes between B's household and the others takes so many milliseconds each way. Needs Python and `/dev/net/tun`.
    pub(crate) fn apart(gate_a: Gate, gate_b: Gate, delay_ms: u32) -> Option<Self> {
        if let Err(why) = usable(delay_ms > 0) {
            println!("netns: skipped, {why}");
            return None;
        }
        let prefix = format!("st{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut net = Self { prefix, far: None };
        for name in ["net", "gatea", "gateb", "a", "b"] {
            net.ip(&["netns", "add", &net.name(name)]);
            net.on(name, "ip link set lo up");
            for family in ["ipv4.ip_forward", "ipv6.conf.all.forwarding", "ipv6.conf.default.accept_dad"] {
                let value = u8::from(!family.ends_with("dad") && name != "a" && name != "b");
                net.on(name, &format!("echo {value} > /proc/sys/net/{}", family.replace('.', "/")));
            }
        }
        if delay_ms > 0 {
            net.far = Some(net.far_wire("to_b", "gateb", "outside", delay_ms));
        }
        net.household(Side::A, gate_a);
        net.household(Side::B, gate_b);
        Some(net)
    }

    /// A wire from the internet on which everything takes its time.
    fn far_wire(&self, near: &str, router: &str, far: &str, delay_ms: u32) -> Child {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/support/far.py");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name("net"), "python3", script, near, far, &self.name(router)]);
        command.arg(delay_ms.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut wire = command.spawn().expect("ip is there");
        let mut said = String::new();
        BufReader::new(wire.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "the far wire");
        self.on("net", &format!("ip link set {near} up"));
        self.on(router, &format!("ip link set {far} up"));
        wire
    }

    /// The namespace of the machine of a household.
    pub(crate) fn machine(&self, side: Side) -> String {
        self.name(side.letter())
    }

    /// The namespace of the internet between them: what stands there is reached at `198.51.100.1` from everywhere.
    pub(crate) fn internet(&self) -> String {
        self.name("net")
    }

    /// Runs a line of shell in the namespace of a machine.
    pub(crate) fn at_machine(&self, side: Side, line: &str) -> String {
        self.on(side.letter(), line)
    }

    /// Runs a line of shell in the namespace of a gate.
    pub(crate) fn at_gate(&self, side: Side, line: &str) -> String {
        self.on(&format!("gate{}", side.letter()), line)
    }

    /// Bytes that the machine of a household has received from outside.
    pub(crate) fn received(&self, side: Side) -> u64 {
        self.at_machine(side, "cat /sys/class/net/eth0/statistics/rx_bytes").trim().parse().unwrap()
    }

    /// Slows what goes to the machine of a household down to this rate, as `tc` writes it.
    pub(crate) fn slow(&self, side: Side, rate: &str) {
        self.at_gate(side, &format!("tc qdisc add dev inside root tbf rate {rate} burst 32kb latency 100ms"));
    }

    fn household(&self, side: Side, gate: Gate) {
        let (letter, n, outside) = (side.letter(), side.number(), side.outside());
        let router = format!("gate{letter}");
        let inside = if gate == Gate::Open { format!("192.0.2.{}", 64 * n) } else { format!("10.{n}.0.0") };
        let at = |host: u8| {
            let (network, last) = inside.rsplit_once('.').unwrap();
            format!("{network}.{}", last.parse::<u8>().unwrap() + host)
        };
        self.wire(letter, "eth0", &router, "inside");
        let between = format!("to_{letter}");
        if side == Side::A || self.far.is_none() {
            self.wire(&router, "outside", "net", &between);
        }
        self.on(letter, &format!("ip address add {}/26 dev eth0", at(2)));
        self.on(letter, &format!("ip address add 2001:db8:{n}::2/64 dev eth0 nodad"));
        self.on(&router, &format!("ip address add {}/26 dev inside", at(1)));
        self.on(&router, &format!("ip address add 2001:db8:{n}::1/64 dev inside nodad"));
        self.on(&router, &format!("ip address add {outside}.2/24 dev outside"));
        self.on(&router, &format!("ip address add 2001:db8:{n}0::2/64 dev outside nodad"));
        self.on("net", &format!("ip address add {outside}.1/24 dev {between}"));
        self.on("net", &format!("ip address add 2001:db8:{n}0::1/64 dev {between} nodad"));
        self.on(letter, &format!("ip route add default via {}", at(1)));
        self.on(letter, &format!("ip -6 route add default via 2001:db8:{n}::1"));
        self.on(&router, &format!("ip route add default via {outside}.1"));
        self.on(&router, &format!("ip -6 route add default via 2001:db8:{n}0::1"));
        self.on("net", &format!("ip -6 route add 2001:db8:{n}::/64 via 2001:db8:{n}0::2"));
        if gate == Gate::Open {
            self.on("net", &format!("ip route add {inside}/26 via {outside}.2"));
            return;
        }
        let random = if gate == Gate::TranslatingAtRandom { " --random" } else { "" };
        self.on(&router, &format!("iptables -t nat -A POSTROUTING -o outside -j MASQUERADE{random}"));
        self.on(&router, "iptables -A FORWARD -i outside -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT");
        self.on(&router, "iptables -A FORWARD -i outside -j DROP");
        // A packet that is let into the gate itself would be remembered, and take the place of the connection outwards.
        let unasked = "iptables -A INPUT -i outside -p tcp -m conntrack --ctstate NEW";
        match gate {
            Gate::TranslatingSilently | Gate::TranslatingAtRandom => self.on(&router, &format!("{unasked} -j DROP")),
            Gate::TranslatingWithResets => self.on(&router, &format!("{unasked} -j REJECT --reject-with tcp-reset")),
            Gate::Open | Gate::Translating => String::new(),
        };
        // A household behind a translating gate has no IPv6: else the test would go around it.
        self.on(letter, "ip -6 address flush dev eth0 scope global");
    }

    fn wire(&self, left: &str, left_end: &str, right: &str, right_end: &str) {
        let (near, far) = (self.name(left), self.name(right));
        let peer = ["type", "veth", "peer", "name", right_end, "netns", &far];
        let mut words = vec!["link", "add", left_end, "netns", &near];
        words.extend(peer);
        self.ip(&words);
        self.on(left, &format!("ip link set {left_end} up"));
        self.on(right, &format!("ip link set {right_end} up"));
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    #[track_caller]
    fn ip(&self, words: &[&str]) {
        run(Command::new("ip").args(words)).unwrap_or_else(|error| panic!("ip {words:?}: {error}"));
    }

    #[track_caller]
    fn on(&self, name: &str, line: &str) -> String {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(name), "sh", "-c", line]);
        run(&mut command).unwrap_or_else(|error| panic!("{name}: {line}: {error}"))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Some(mut wire) = self.far.take() {
            let _ended = wire.kill().and_then(|()| wire.wait());
        }
        for name in ["net", "gatea", "gateb", "a", "b"] {
            let _gone = run(Command::new("ip").args(["netns", "delete", &self.name(name)]));
        }
    }
}

/// Whether this machine lets tests make namespaces.
fn usable(with_delay: bool) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("not root".to_owned());
    }
    for tool in ["ip", "iptables", "tc", "conntrack"] {
        run(Command::new(tool).arg(if tool == "ip" || tool == "tc" { "-V" } else { "--version" }))
            .map_err(|error| format!("{tool}: {error}"))?;
    }
    if with_delay {
        run(Command::new("python3").arg("--version")).map_err(|error| format!("python3: {error}"))?;
        std::fs::metadata("/dev/net/tun").map_err(|error| format!("/dev/net/tun: {error}"))?;
    }
    let probe = format!("st{}probe{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let made = run(Command::new("ip").args(["netns", "add", &probe]));
    let nat =
        made.and_then(|_| run(Command::new("ip").args(["netns", "exec", &probe, "iptables", "-t", "nat", "-L", "-n"])));
    let _gone = run(Command::new("ip").args(["netns", "delete", &probe]));
    nat.map(drop)
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
