//! Addresses `ib^gib` and the ids derived from records. Spec: ibgib §1.2, §12.2.

use std::fmt;
use std::sync::Arc;

use sealtide_crypto::sha256;

/// A valid address `ib^gib`. Cheap to clone. Compared and ordered by its bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(Arc<str>);

impl Address {
    /// Checks and takes an address: valid by §1.3.
    ///
    /// # Errors
    /// [`AddressError`] with the first rule that is broken.
    // Spec: SY-9
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        match validate_address(text) {
            Ok(codes) => codes.first().map_or_else(|| Ok(Self(text.into())), |code| Err(AddressError { code })),
            Err(error) => Err(error),
        }
    }

    /// The address `ib^gib`.
    ///
    /// # Errors
    /// [`AddressError`] as for [`Address::parse`]; a `^` in either part is one.
    pub fn of(ib: &str, gib: &str) -> Result<Self, AddressError> {
        if gib.contains('^') {
            return Err(AddressError { code: "gib_invalid_chars" });
        }
        let mut text = String::with_capacity(ib.len() + 1 + gib.len());
        text.push_str(ib);
        text.push('^');
        text.push_str(gib);
        Self::parse(&text)
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the last `^`.
    pub fn ib(&self) -> &str {
        self.0.rsplit_once('^').map_or("", |(ib, _)| ib)
    }

    /// The part after the last `^`.
    pub fn gib(&self) -> &str {
        self.0.rsplit_once('^').map_or(&self.0, |(_, gib)| gib)
    }

    /// Whether the gib is the literal `gib`: no integrity, no record.
    pub fn is_primitive(&self) -> bool {
        self.gib() == "gib"
    }

    /// The gib of the timeline's first frame as this address tells it: what follows the first `.` of the gib; the
    /// gib itself when there is no `.` (a first frame, or no frame at all).
    pub fn tjp_gib(&self) -> &str {
        let gib = self.gib();
        gib.split_once('.').map_or(gib, |(_, tjp)| tjp)
    }

    /// SHA-256 of the text: the timeline id when this is the address of a first frame. Spec: ibgib §13.2.
    pub fn timeline_id(&self) -> TimelineId {
        TimelineId(sha256(self.0.as_bytes()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no valid address; [`AddressError::code`] gives the code of ibgib §1.3.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad address: {code}")]
pub struct AddressError {
    code: &'static str,
}

impl AddressError {
    /// The code of ibgib §1.3, `gib_bad_hash` for instance.
    pub fn code(&self) -> &'static str {
        self.code
    }
}

impl AddressError {
    pub(crate) fn new(code: &'static str) -> Self {
        Self { code }
    }
}

/// Splits at the last `^`; without one the ib is empty and the whole text is the gib. Spec: ibgib §1.2.
///
/// # Errors
/// `addr_required` for the empty text.
pub fn split_address(text: &str) -> Result<(&str, &str), AddressError> {
    if text.is_empty() {
        return Err(AddressError::new("addr_required"));
    }
    Ok(text.rsplit_once('^').unwrap_or(("", text)))
}

/// What a gib says about itself. Spec: ibgib §1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GibInfo<'a> {
    /// The literal `gib`.
    Primitive,
    /// A hash, and the gib of the first frame if there is one.
    Hash {
        /// The first segment: the hash of this very frame.
        punctiliar: &'a str,
        /// The rest, joined by `.`.
        tjp: Option<&'a str>,
        /// Number of segments.
        pieces: usize,
    },
}

/// Splits a gib at `.`; segments are not judged.
///
/// # Errors
/// `gib_required` for the empty text, `gib_empty_piece` for an empty segment.
pub fn gib_info(gib: &str) -> Result<GibInfo<'_>, AddressError> {
    if gib.is_empty() {
        return Err(AddressError::new("gib_required"));
    }
    if gib == "gib" {
        return Ok(GibInfo::Primitive);
    }
    if gib.split('.').any(str::is_empty) {
        return Err(AddressError::new("gib_empty_piece"));
    }
    let (punctiliar, tjp) = gib.split_once('.').map_or((gib, None), |(first, rest)| (first, Some(rest)));
    Ok(GibInfo::Hash { punctiliar, tjp, pieces: gib.split('.').count() })
}

/// The codes of every rule of §1.3 that an address breaks, in order; empty for a valid one.
///
/// A bad TJP part is reported by its own code (`gib_bad_hash`).
///
/// # Errors
/// `gib_empty_piece`, which is thrown and not listed.
// Spec: SY-9
pub fn validate_address(text: &str) -> Result<Vec<&'static str>, AddressError> {
    let Ok((ib, gib)) = split_address(text) else { return Ok(vec!["addr_required"]) };
    let mut codes = Vec::new();
    if !text.contains('^') {
        codes.push("no_delimiter");
    }
    if text.starts_with('^') {
        codes.push("starts_with_delimiter");
    }
    codes.extend(validate_ib(ib));
    codes.extend(validate_gib(gib)?);
    Ok(codes)
}

/// The code of the rule that an ib breaks.
pub fn validate_ib(ib: &str) -> Option<&'static str> {
    match ib {
        "" => Some("ib_required"),
        _ if ib.contains('^') => Some("ib_contains_delimiter"),
        _ => None,
    }
}

/// The code of the rule that a gib breaks.
///
/// # Errors
/// `gib_empty_piece`, which is thrown and not listed.
pub fn validate_gib(gib: &str) -> Result<Option<&'static str>, AddressError> {
    if gib.is_empty() {
        return Ok(Some("gib_required"));
    }
    if gib.contains('^') {
        return Ok(Some("gib_invalid_chars"));
    }
    // Every suffix after a `.` must itself be a gib: the literal `gib` or begin with a hash.
    let mut rest = gib;
    let mut code = None;
    loop {
        if rest == "gib" {
            return Ok(code);
        }
        let (segment, tail) = rest.split_once('.').map_or((rest, None), |(first, tail)| (first, Some(tail)));
        if segment.is_empty() {
            return Err(AddressError::new("gib_empty_piece"));
        }
        if !is_hash(segment) {
            code = Some("gib_bad_hash");
        }
        match tail {
            Some(tail) => rest = tail,
            None => return Ok(code),
        }
    }
}

/// 32 or 64 hex digits of either case.
fn is_hash(segment: &str) -> bool {
    matches!(segment.len(), 32 | 64) && segment.bytes().all(|byte| byte.is_ascii_hexdigit())
}

macro_rules! hash32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    };
}

hash32!(
    /// The strong id of a record: equal sid means equal bytes. Spec: ibgib §12.2.
    Sid
);
hash32!(
    /// The id of a timeline on the wire: SHA-256 of the address of its first frame. Spec: ibgib §13.2.
    TimelineId
);
