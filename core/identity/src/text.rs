//! Text forms: `prefix ‖ base32lower_nopad(payload ‖ check)`. Spec: link C.3.

use data_encoding::BASE32_NOPAD;
use sealtide_crypto::sha256_parts;

/// Bytes of the check at the end of every text form.
const CHECK_BYTES: usize = 4;
/// The most characters that are looked at, far above the longest ticket (about 1 900).
const TEXT_CHARS_MAX: usize = 4_096;

/// A text that is no valid text form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// It does not begin with the prefix of its kind.
    #[error("not a text that begins with {expected}")]
    Prefix {
        /// The prefix that was looked for, `stn1` for instance.
        expected: &'static str,
    },
    /// Some character is wrong: the check at the end does not fit.
    #[error("typing error: the check at the end of the {expected}… text does not fit")]
    Typing {
        /// The prefix that was looked for.
        expected: &'static str,
    },
}

/// Writes `payload` in the text form of `prefix`.
pub fn encode_text(prefix: &'static str, payload: &[u8]) -> String {
    let mut bytes = payload.to_vec();
    bytes.extend_from_slice(&check(prefix, payload));
    let mut text = prefix.to_owned();
    text.push_str(&BASE32_NOPAD.encode(&bytes).to_ascii_lowercase());
    text
}

/// Reads a text form. Case, spaces and hyphens are ignored.
///
/// # Errors
/// [`TextError`]; a wrong check is a typing error, never looked up.
pub fn decode_text(prefix: &'static str, text: &str) -> Result<Vec<u8>, TextError> {
    let clean: String = text
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '-')
        .map(|c| c.to_ascii_lowercase())
        .take(TEXT_CHARS_MAX + 1)
        .collect();
    let body = clean.strip_prefix(prefix).ok_or(TextError::Prefix { expected: prefix })?;
    let typing = TextError::Typing { expected: prefix };
    if clean.len() > TEXT_CHARS_MAX {
        return Err(typing);
    }
    let mut bytes = BASE32_NOPAD.decode(body.to_ascii_uppercase().as_bytes()).map_err(|_| typing)?;
    let split = bytes.len().checked_sub(CHECK_BYTES).ok_or(typing)?;
    let found = bytes.split_off(split);
    if found != check(prefix, &bytes) { Err(typing) } else { Ok(bytes) }
}

fn check(prefix: &str, payload: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = sha256_parts(&[b"sealtide-text-v1", &[0], prefix.as_bytes(), &[0], payload]);
    [digest[0], digest[1], digest[2], digest[3]]
}
