//! permessage-deflate, as far as headers go. Spec: gateway §6, RFC 7692 §7.1.

use http::HeaderMap;

/// Offers that are looked at, at most; more are as good as none.
const OFFERS_MAX: usize = 16;

/// What was agreed: no context is carried from one message to the next, in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    /// Window of what the server sends, 9 to 15, when the client asked for one.
    pub server_max_window_bits: Option<u8>,
}

impl Deflate {
    /// The first offer that can be accepted. One that cannot is declined, never a reason to refuse.
    // Spec: GW-37
    pub fn negotiate(headers: &HeaderMap) -> Option<Self> {
        let lines = headers.get_all("sec-websocket-extensions").iter();
        let offers = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
        offers.take(OFFERS_MAX).find_map(Self::read)
    }

    /// The value of the header in the answer.
    pub fn answer(&self) -> String {
        let window = self.server_max_window_bits.map(|bits| format!("; server_max_window_bits={bits}"));
        format!(
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover{}",
            window.unwrap_or_default()
        )
    }

    fn read(offer: &str) -> Option<Self> {
        let mut parts = offer.split(';').map(str::trim);
        if parts.next()? != "permessage-deflate" {
            return None;
        }
        let mut seen = Vec::new();
        let mut agreed = Self { server_max_window_bits: None };
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), Some(unquoted(value.trim())?)),
                None => (part, None),
            };
            if seen.contains(&name) {
                return None;
            }
            seen.push(name);
            match (name, value) {
                ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None) => {}
                // A window of 8 is none that deflate libraries can keep.
                ("server_max_window_bits", Some(value)) => {
                    agreed.server_max_window_bits = Some(window(value).filter(|bits| *bits > 8)?);
                }
                ("client_max_window_bits", Some(value)) => {
                    window(value)?;
                }
                _ => return None,
            }
        }
        Some(agreed)
    }
}

fn unquoted(value: &str) -> Option<&str> {
    value.strip_prefix('"').map_or(Some(value), |inner| inner.strip_suffix('"'))
}

/// 8 to 15, without a leading zero.
fn window(text: &str) -> Option<u8> {
    let plain = text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    plain.then(|| text.parse().ok()).flatten().filter(|bits| (8..=15).contains(bits))
}
