//! Times in ledgers: `2026-11-28T09:30:00.000Z` and whole milliseconds. Spec: gateway §7.6, §7.9.

use sealtide_ibgib::Stamp;

use crate::keystone::moment::{parse_moment, write_moment};

/// ISO 8601, UTC, with milliseconds.
pub fn write_time(ms: u64) -> String {
    let ms = ms.min(Stamp::MS_MAX);
    let seconds = write_moment(Stamp { ms });
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), ms % 1000)
}

/// Reads an RFC 3339 time, strictly: `T`, `Z` or a numeric offset, up to nine digits of a second (cut to
/// milliseconds), the year 1970 or later. `None` for anything else.
// Spec: GW-55
pub fn parse_time(text: &str) -> Option<u64> {
    if !text.is_ascii() {
        return None;
    }
    let (seconds, rest) = text.split_at_checked(19)?;
    let whole = parse_moment(&format!("{seconds}Z"))?.ms;
    let digits = rest.strip_prefix('.').map_or("", |rest| &rest[..rest.bytes().take_while(u8::is_ascii_digit).count()]);
    let zone = if rest.starts_with('.') { rest.get(1 + digits.len()..)? } else { rest };
    if digits.len() > 9 || rest.starts_with('.') && digits.is_empty() {
        return None;
    }
    let millis: u64 = format!("{digits:0<3}")[..3].parse().ok()?;
    let offset = parse_offset(zone)?;
    u64::try_from(i64::try_from(whole + millis).ok()? - offset * 60_000).ok()
}

/// Minutes east of UTC.
fn parse_offset(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    let number = |text: &str, max: i64| {
        let plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse::<i64>().ok()).flatten().filter(|number| *number <= max)
    };
    Some(sign * (number(hours, 23)? * 60 + number(minutes, 59)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_are_written_are_read() {
        for ms in [0, 1, 999, 1_764_322_200_123, Stamp::MS_MAX] {
            assert_eq!(parse_time(&write_time(ms)), Some(ms));
        }
        assert_eq!(write_time(951_827_696_007), "2000-02-29T12:34:56.007Z");
    }

    // Proves: GW-55
    #[test]
    fn times_are_read_strictly() {
        assert_eq!(parse_time("2000-02-29T12:34:56Z"), Some(951_827_696_000));
        assert_eq!(parse_time("2000-02-29T13:34:56.5+01:00"), Some(951_827_696_500));
        assert_eq!(parse_time("2000-02-29T11:34:56.123456789-01:00"), Some(951_827_696_123));
        let odd = ["", "2000-02-29", "2000-02-30T00:00:00Z", "2000-02-29t12:34:56Z", "2000-02-29T12:34:56", "soon"];
        let odder = [
            "2000-02-29T12:34:56.Z",
            "2000-02-29T12:34:56+1:00",
            "2000-02-29T12:34:56+24:00",
            "1970-01-01T00:00:00+00:01",
        ];
        for bad in odd.iter().chain(&odder) {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }
}
