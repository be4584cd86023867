//! Times in scopes: `2027-01-01T00:00:00Z`, whole seconds, UTC.

use sealtide_ibgib::Stamp;

/// The text of a time, seconds kept.
pub(crate) fn write_moment(stamp: Stamp) -> String {
    let text = stamp.timestamp();
    format!("{}T{}Z", stamp.date(), &text[17..25])
}

/// The time of a text, exactly as [`write_moment`] spells it.
pub(crate) fn parse_moment(text: &str) -> Option<Stamp> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    if text.len() != 20 || !text.is_ascii() {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    let stamp = Stamp { ms: seconds * 1_000 };
    // Whatever is odd about the text (31 February, second 60, another separator) shows when it is written again.
    (write_moment(stamp) == text).then_some(stamp)
}

/// By counting from 1 March, so that the leap day is the last of a year.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:34:56Z", 951_827_696_000),
            ("2027-01-01T00:00:00Z", 1_798_761_600_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000),
        ] {
            assert_eq!(parse_moment(text), Some(Stamp { ms }), "{text}");
            assert_eq!(write_moment(Stamp { ms: ms + 999 }), text);
        }
        for bad in [
            "",
            "2027-02-29T00:00:00Z",
            "2027-01-01T00:00:60Z",
            "2027-01-01 00:00:00Z",
            "2027-01-01T24:00:00Z",
            "+027-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_moment(bad), None, "{bad}");
        }
    }
}
