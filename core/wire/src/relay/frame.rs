//! The frames between a node and its relay: one in each binary message. Spec: link C.5.
//!
//! ```text
//! type u8 | flags u8 = 0 | 0 u16 | circuit u32 (0 where the type has none) | payload
//! ```

use bytes::{Buf as _, BufMut, Bytes, BytesMut};
use sealtide_identity::{LinkAddress, NodeId, RELAY_COUNT_MAX, ReadError, Reader, RelayHint};

/// Bytes in front of the payload.
pub const RELAY_HEAD_BYTES: usize = 8;
/// The most payload bytes of one R_DATA: any TLS record fits.
pub const RELAY_DATA_BYTES_MAX: usize = 16_640;
/// The most bytes of any relay frame that is not R_DATA.
const OTHER_BYTES_MAX: usize = RELAY_HEAD_BYTES + 6 + 1 + RELAY_COUNT_MAX * (32 + 1 + 200);
/// The longest time that one R_ALLOW lasts: 30 days.
pub const ALLOW_SECONDS_MAX: u32 = 30 * 86_400;

/// The number of a circuit at one of its ends; the other end has another. Never 0. Odd: chosen by the node that opens;
/// even: by the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CircuitNumber(u32);

impl CircuitNumber {
    /// The number `number`; `None` for 0.
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The number on the wire.
    pub const fn as_u32(self) -> u32 {
        self.0
    }

    /// Whether the node on this login opened the circuit.
    pub const fn is_openers(self) -> bool {
        self.0 % 2 == 1
    }
}

/// Why a circuit does not come about, or ends. Spec: link C.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum CircuitEnd {
    /// In order. Not in R_REFUSE.
    Done = 0,
    /// The target is not there, or does not want this opener: which of both is not told.
    Unreachable = 1,
    /// No room, or no progress.
    Busy = 2,
    /// The opener may not.
    NotAllowed = 3,
    /// The opener opens too often.
    Rate = 4,
    /// The relay is going away.
    Draining = 5,
}

impl CircuitEnd {
    /// Every code, in order.
    pub const ALL: [Self; 6] =
        [Self::Done, Self::Unreachable, Self::Busy, Self::NotAllowed, Self::Rate, Self::Draining];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        self as u16
    }

    fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|end| end.code() == code)
    }
}

/// Why a relay ends a login. Spec: link C.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum GoAwayCode {
    /// The relay shuts down; circuits live on for a while.
    Draining = 1,
    /// A newer login of the same node took over.
    Replaced = 2,
    /// Two nodes with one key fight for the login.
    DuplicateIdentity = 3,
    /// This node is let in no longer.
    NotAdmitted = 4,
}

impl GoAwayCode {
    /// Every code, in order.
    pub const ALL: [Self; 4] = [Self::Draining, Self::Replaced, Self::DuplicateIdentity, Self::NotAdmitted];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        self as u16
    }

    fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|end| end.code() == code)
    }
}

/// One relay frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayFrame {
    /// Node to relay: a circuit to `target`, please.
    Open {
        /// The number that this node calls it by.
        circuit: CircuitNumber,
        /// Who is wanted.
        target: NodeId,
        /// Whether the target may be told where the opener is seen.
        show_address: bool,
    },
    /// Relay to target: somebody wants a circuit.
    Incoming {
        /// The number that the target calls it by.
        circuit: CircuitNumber,
        /// Who opened it, proved to the relay only.
        opener: NodeId,
        /// Where the relay sees the opener, if it wants that told.
        address: Option<LinkAddress>,
    },
    /// The circuit stands.
    Accept {
        /// Which.
        circuit: CircuitNumber,
    },
    /// The circuit does not come about.
    Refuse {
        /// Which.
        circuit: CircuitNumber,
        /// Why; never [`CircuitEnd::Done`].
        why: CircuitEnd,
    },
    /// Bytes of the circuit, 1 to [`RELAY_DATA_BYTES_MAX`].
    Data {
        /// Which.
        circuit: CircuitNumber,
        /// The bytes.
        payload: Bytes,
    },
    /// The end that sends it takes so many bytes more.
    Credit {
        /// Which.
        circuit: CircuitNumber,
        /// More than 0.
        increment: u32,
    },
    /// The circuit is over, both ways; what was sent before it is delivered.
    Close {
        /// Which.
        circuit: CircuitNumber,
        /// Why.
        why: CircuitEnd,
    },
    /// Relay to node: where it is seen now.
    Observed {
        /// There.
        address: LinkAddress,
    },
    /// Node to relay: can you connect to me at this port?
    Probe {
        /// The port.
        port: u16,
    },
    /// The answer.
    ProbeResult {
        /// The port.
        port: u16,
        /// Whether the connection came about.
        open: bool,
        /// How long it took, ms.
        ms: u16,
    },
    /// To be echoed.
    Ping([u8; 8]),
    /// The echo.
    Pong([u8; 8]),
    /// Node to relay: let this id in, in my name.
    Allow {
        /// The id; zeros stand for guests.
        node: NodeId,
        /// For so long, at most [`ALLOW_SECONDS_MAX`]; 0 takes it back.
        seconds: u32,
    },
    /// Relay to node: this login is over, or soon will be.
    GoAway {
        /// Why.
        code: GoAwayCode,
        /// When to come back, ms.
        reconnect_ms: u32,
        /// Other relays; taken only where they are known already.
        relays: Vec<RelayHint>,
    },
}

/// The bytes of one message in two parts, to be written without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayMessage {
    /// The head of the frame.
    pub head: [u8; RELAY_HEAD_BYTES],
    /// What follows it.
    pub payload: Bytes,
}

impl RelayMessage {
    /// The message in one piece.
    pub fn to_bytes(&self) -> Bytes {
        [&self.head[..], &self.payload].concat().into()
    }
}

/// Bytes that are no relay frame: the login is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RelayFrameError {
    /// The first byte names no type.
    #[error("unknown relay frame type {0:#04x}")]
    UnknownType(u8),
    /// The bytes break the layout of their type.
    #[error("relay frame {kind:#04x}: {rule}")]
    Malformed {
        /// The type.
        kind: u8,
        /// What is wrong.
        rule: &'static str,
    },
}

const OPEN: u8 = 0x20;
const INCOMING: u8 = 0x21;
const ACCEPT: u8 = 0x22;
const REFUSE: u8 = 0x23;
const DATA: u8 = 0x24;
const CREDIT: u8 = 0x25;
const CLOSE: u8 = 0x26;
const OBSERVED: u8 = 0x27;
const PROBE: u8 = 0x28;
const PROBE_RESULT: u8 = 0x29;
const PING: u8 = 0x2A;
const PONG: u8 = 0x2B;
const ALLOW: u8 = 0x2C;
const GO_AWAY: u8 = 0x2F;
const SHOW_ADDRESS: u8 = 1;

fn head(kind: u8, circuit: Option<CircuitNumber>) -> [u8; RELAY_HEAD_BYTES] {
    let [a, b, c, d] = circuit.map_or(0, CircuitNumber::as_u32).to_be_bytes();
    [kind, 0, 0, 0, a, b, c, d]
}

impl RelayFrame {
    /// The bytes of one message.
    pub fn encode(&self) -> Bytes {
        let data_bytes = if let Self::Data { payload, .. } = self { payload.len() } else { 56 };
        let mut out = BytesMut::with_capacity(RELAY_HEAD_BYTES + data_bytes);
        let head = |kind: u8, circuit: Option<CircuitNumber>, out: &mut BytesMut| out.put_slice(&head(kind, circuit));
        match self {
            Self::Open { circuit, target, show_address } => {
                head(OPEN, Some(*circuit), &mut out);
                out.put_slice(target.as_bytes());
                out.put_u8(if *show_address { SHOW_ADDRESS } else { 0 });
            }
            Self::Incoming { circuit, opener, address } => {
                head(INCOMING, Some(*circuit), &mut out);
                out.put_slice(opener.as_bytes());
                out.put_slice(&address.map_or([0; 20], |address| address.to_bytes()));
            }
            Self::Accept { circuit } => head(ACCEPT, Some(*circuit), &mut out),
            Self::Refuse { circuit, why } => {
                head(REFUSE, Some(*circuit), &mut out);
                out.put_u16(why.code());
            }
            Self::Data { circuit, payload } => {
                head(DATA, Some(*circuit), &mut out);
                out.put_slice(payload);
            }
            Self::Credit { circuit, increment } => {
                head(CREDIT, Some(*circuit), &mut out);
                out.put_u32(*increment);
            }
            Self::Close { circuit, why } => {
                head(CLOSE, Some(*circuit), &mut out);
                out.put_u16(why.code());
            }
            Self::Observed { address } => {
                head(OBSERVED, None, &mut out);
                out.put_slice(&address.to_bytes());
            }
            Self::Probe { port } => {
                head(PROBE, None, &mut out);
                out.put_u16(*port);
            }
            Self::ProbeResult { port, open, ms } => {
                head(PROBE_RESULT, None, &mut out);
                out.put_u16(*port);
                out.put_u8(u8::from(*open));
                out.put_u16(*ms);
            }
            Self::Ping(token) => {
                head(PING, None, &mut out);
                out.put_slice(token);
            }
            Self::Pong(token) => {
                head(PONG, None, &mut out);
                out.put_slice(token);
            }
            Self::Allow { node, seconds } => {
                head(ALLOW, None, &mut out);
                out.put_slice(node.as_bytes());
                out.put_u32(*seconds);
            }
            Self::GoAway { code, reconnect_ms, relays } => {
                head(GO_AWAY, None, &mut out);
                out.put_u16(code.code());
                out.put_u32(*reconnect_ms);
                let relays: Vec<_> = relays.iter().filter(|r| r.has_valid_url()).take(RELAY_COUNT_MAX).collect();
                out.put_u8(relays.len() as u8);
                let mut tail = Vec::new();
                relays.iter().for_each(|relay| relay.write(&mut tail));
                out.put_slice(&tail);
            }
        }
        out.freeze()
    }

    /// The same as [`RelayFrame::encode`], without a copy of what R_DATA carries.
    pub(super) fn into_message(self) -> RelayMessage {
        match self {
            Self::Data { circuit, payload } => RelayMessage { head: head(DATA, Some(circuit)), payload },
            other => {
                let mut payload = other.encode();
                let mut head = [0; RELAY_HEAD_BYTES];
                payload.copy_to_slice(&mut head);
                RelayMessage { head, payload }
            }
        }
    }

    /// Reads the bytes of one message strictly. The payload of R_DATA is a slice of `message`.
    ///
    /// # Errors
    /// [`RelayFrameError`].
    pub fn decode(message: &Bytes) -> Result<Self, RelayFrameError> {
        let kind = *message.first().ok_or(RelayFrameError::Malformed { kind: 0, rule: "an empty message" })?;
        if !matches!(kind, OPEN..=ALLOW | GO_AWAY) {
            return Err(RelayFrameError::UnknownType(kind));
        }
        Self::decode_known(kind, message).map_err(|rule| RelayFrameError::Malformed { kind, rule })
    }

    fn decode_known(kind: u8, message: &Bytes) -> Result<Self, &'static str> {
        if kind != DATA && message.len() > OTHER_BYTES_MAX {
            return Err("too long");
        }
        let mut reader = Reader::new(message);
        let [_, flags, zero @ ..] = reader.array::<4>().map_err(ReadError::rule)?;
        if (flags, zero) != (0, [0, 0]) {
            return Err("a reserved byte is set");
        }
        let number = CircuitNumber::new(reader.u32().map_err(ReadError::rule)?);
        let has_circuit = kind <= CLOSE;
        if number.is_some() != has_circuit {
            return Err(if has_circuit { "without a circuit" } else { "with a circuit" });
        }
        if let Some(circuit) = number {
            return Self::decode_of_circuit(kind, circuit, message, reader);
        }
        Self::decode_of_login(kind, reader)
    }

    fn decode_of_circuit(
        kind: u8,
        circuit: CircuitNumber,
        message: &Bytes,
        mut reader: Reader<'_>,
    ) -> Result<Self, &'static str> {
        let read = ReadError::rule;
        let frame = match kind {
            OPEN => {
                let target = NodeId::from_bytes(reader.array().map_err(read)?);
                let flags = reader.u8().map_err(read)?;
                if flags & !SHOW_ADDRESS != 0 {
                    return Err("an unknown flag");
                }
                Self::Open { circuit, target, show_address: flags == SHOW_ADDRESS }
            }
            INCOMING => {
                let opener = NodeId::from_bytes(reader.array().map_err(read)?);
                let address = match reader.array::<20>().map_err(read)? {
                    zeros if zeros == [0; 20] => None,
                    bytes => Some(LinkAddress::from_bytes(&bytes).ok_or("a malformed address")?),
                };
                Self::Incoming { circuit, opener, address }
            }
            ACCEPT => Self::Accept { circuit },
            REFUSE => {
                let why = CircuitEnd::from_code(reader.u16().map_err(read)?).ok_or("an unknown code")?;
                if why == CircuitEnd::Done {
                    return Err("a refusal without a reason");
                }
                Self::Refuse { circuit, why }
            }
            DATA => {
                let length = message.len() - RELAY_HEAD_BYTES;
                if length == 0 || length > RELAY_DATA_BYTES_MAX {
                    return Err("no bytes, or more than 16 640");
                }
                return Ok(Self::Data { circuit, payload: message.slice(RELAY_HEAD_BYTES..) });
            }
            CREDIT => match reader.u32().map_err(read)? {
                0 => return Err("credit of nothing"),
                increment => Self::Credit { circuit, increment },
            },
            _ => {
                let why = CircuitEnd::from_code(reader.u16().map_err(read)?).ok_or("an unknown code")?;
                Self::Close { circuit, why }
            }
        };
        reader.end().map_err(read)?;
        Ok(frame)
    }

    fn decode_of_login(kind: u8, mut reader: Reader<'_>) -> Result<Self, &'static str> {
        let read = ReadError::rule;
        let frame = match kind {
            OBSERVED => {
                let address = LinkAddress::from_bytes(&reader.array().map_err(read)?);
                Self::Observed { address: address.ok_or("a malformed address")? }
            }
            PROBE => Self::Probe { port: reader.u16().map_err(read)? },
            PROBE_RESULT => {
                let port = reader.u16().map_err(read)?;
                let open = match reader.u8().map_err(read)? {
                    0 => false,
                    1 => true,
                    _ => return Err("a result that is neither 0 nor 1"),
                };
                Self::ProbeResult { port, open, ms: reader.u16().map_err(read)? }
            }
            PING => Self::Ping(reader.array().map_err(read)?),
            PONG => Self::Pong(reader.array().map_err(read)?),
            ALLOW => {
                let node = NodeId::from_bytes(reader.array().map_err(read)?);
                let seconds = reader.u32().map_err(read)?;
                if seconds > ALLOW_SECONDS_MAX {
                    return Err("more than 30 days");
                }
                Self::Allow { node, seconds }
            }
            _ => {
                let code = GoAwayCode::from_code(reader.u16().map_err(read)?).ok_or("an unknown code")?;
                let reconnect_ms = reader.u32().map_err(read)?;
                let count = usize::from(reader.u8().map_err(read)?);
                if count > RELAY_COUNT_MAX {
                    return Err("more than 4 relays");
                }
                let relays = (0..count).map(|_| RelayHint::read(&mut reader)).collect::<Result<_, _>>();
                Self::GoAway { code, reconnect_ms, relays: relays.map_err(|_| "a malformed relay")? }
            }
        };
        reader.end().map_err(read)?;
        Ok(frame)
    }
}
