//! The encoded record: deterministic CBOR `[ib, gib, kind, D, R]`. Spec: ibgib §12.2.1.

/// What D is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// No data by ibgib §2.1.
    None,
    /// A JSON text.
    Json,
    /// Bytes.
    Bytes,
}

impl Kind {
    /// The byte in the encoding and in the sid.
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Json => 1,
            Self::Bytes => 2,
        }
    }
}

/// The five parts of an encoded record, borrowed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    pub(crate) ib: &'a str,
    pub(crate) gib: &'a str,
    pub(crate) kind: Kind,
    pub(crate) data: &'a [u8],
    pub(crate) relations: &'a str,
}

const UINT: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;

/// Writes the one encoding.
pub(crate) fn encode(parts: &Parts<'_>) -> Vec<u8> {
    let size = parts.ib.len() + parts.gib.len() + parts.data.len() + parts.relations.len() + 24;
    let mut out = Vec::with_capacity(size);
    head(&mut out, ARRAY, 5);
    item(&mut out, TEXT, parts.ib.as_bytes());
    item(&mut out, TEXT, parts.gib.as_bytes());
    head(&mut out, UINT, u64::from(parts.kind.byte()));
    item(&mut out, if parts.kind == Kind::Bytes { BYTES } else { TEXT }, parts.data);
    item(&mut out, TEXT, parts.relations.as_bytes());
    out
}

/// Takes an encoding apart; `None` for any other spelling than that of [`encode`].
pub(crate) fn decode(encoded: &[u8]) -> Option<Parts<'_>> {
    let mut reader = Reader { rest: encoded };
    if reader.head(ARRAY)? != 5 {
        return None;
    }
    let ib = reader.text()?;
    let gib = reader.text()?;
    let (kind, data) = match reader.head(UINT)? {
        0 => (Kind::None, reader.text()?.as_bytes()),
        1 => (Kind::Json, reader.text()?.as_bytes()),
        2 => (Kind::Bytes, reader.item(BYTES)?),
        _ => return None,
    };
    let relations = reader.text()?;
    let empty_when_none = kind != Kind::None || data.is_empty();
    (reader.rest.is_empty() && empty_when_none).then_some(Parts { ib, gib, kind, data, relations })
}

/// The JSON texts D and R of any CBOR spelling of a record, to tell `bad_json` from `not_canonical`.
pub(crate) fn json_texts(encoded: &[u8]) -> Option<(Option<String>, String)> {
    let mut decoder = minicbor::Decoder::new(encoded);
    decoder.array().ok()?;
    text(&mut decoder)?;
    text(&mut decoder)?;
    let kind = decoder.u64().ok()?;
    let data = match kind {
        1 => Some(text(&mut decoder)?),
        _ => {
            decoder.skip().ok()?;
            None
        }
    };
    Some((data, text(&mut decoder)?))
}

fn text(decoder: &mut minicbor::Decoder<'_>) -> Option<String> {
    decoder.str_iter().ok()?.collect::<Result<String, _>>().ok()
}

fn item(out: &mut Vec<u8>, major: u8, bytes: &[u8]) {
    head(out, major, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn head(out: &mut Vec<u8>, major: u8, value: u64) {
    let major = major << 5;
    let bytes = value.to_be_bytes();
    match value {
        0..=23 => out.push(major | bytes[7]),
        24..=0xFF => out.extend([major | 24, bytes[7]]),
        0x100..=0xFFFF => out.extend([major | 25, bytes[6], bytes[7]]),
        0x1_0000..=0xFFFF_FFFF => {
            out.push(major | 26);
            out.extend(&bytes[4..]);
        }
        _ => {
            out.push(major | 27);
            out.extend(bytes);
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The value of a head of this major type in its shortest form.
    fn head(&mut self, major: u8) -> Option<u64> {
        let (&first, rest) = self.rest.split_first()?;
        if first >> 5 != major {
            return None;
        }
        let low = first & 0x1F;
        let (size, least) = match low {
            0..=23 => (0, 0),
            24 => (1, 24),
            25 => (2, 0x100),
            26 => (4, 0x1_0000),
            27 => (8, 0x1_0000_0000),
            _ => return None,
        };
        let (digits, rest) = rest.split_at_checked(size)?;
        let value = digits.iter().fold(0u64, |value, digit| value << 8 | u64::from(*digit));
        self.rest = rest;
        match size {
            0 => Some(u64::from(low)),
            _ => (value >= least).then_some(value),
        }
    }

    fn item(&mut self, major: u8) -> Option<&'a [u8]> {
        let length = usize::try_from(self.head(major)?).ok()?;
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.item(TEXT)?).ok()
    }
}
