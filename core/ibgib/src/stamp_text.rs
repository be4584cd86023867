//! Time stamps as records write them: `Tue, 14 Nov 2023 22:13:20 GMT`. Spec: ibgib §1.5.

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY_SECONDS: u64 = 86_400;
/// The first second that is not in the year 9999 any more.
const SECONDS_END: u64 = 253_402_300_800;

/// RFC 7231 text of a time in ms since 1970, seconds kept, up to the end of 9999 (later times are cut to it).
pub(crate) fn http_date(ms: u64) -> String {
    let seconds = (ms / 1000).min(SECONDS_END - 1);
    let (days, second) = (seconds / DAY_SECONDS, seconds % DAY_SECONDS);
    let (year, month, day) = civil(days);
    let day_name = DAYS[(days % 7) as usize];
    let month_name = MONTHS[month as usize - 1];
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{day_name}, {day:02} {month_name} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Seconds since 1970 of an RFC 7231 text, exactly as [`http_date`] writes it; `None` for anything else.
pub(crate) fn parse_http_date(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten()
    };
    if text.len() != 29 {
        return None;
    }
    let month = MONTHS.iter().position(|name| text.get(8..11) == Some(name))? as u64 + 1;
    let (day, year) = (number(5..7)?, number(12..16)?);
    let (hour, minute, second) = (number(17..19)?, number(20..22)?, number(23..25)?);
    if year < 1970 || !(1..=31).contains(&day) {
        return None;
    }
    let seconds = days_of(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second;
    // Whatever is odd about the text (day of the week, 31 February, 24:00) shows when it is written again.
    (http_date(seconds * 1000) == text).then_some(seconds)
}

/// Year, month and day of a day since 1970, by the era method for the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

fn days_of(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: SY-8
    #[test]
    fn known_dates() {
        for (ms, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (1_700_000_000_123, "Tue, 14 Nov 2023 22:13:20 GMT"),
            (951_782_400_000, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (253_402_300_799_999, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(http_date(ms), text);
            assert_eq!(parse_http_date(text), Some(ms / 1000));
        }
        for bad in [
            "",
            "Wed, 14 Nov 2023 22:13:20 GMT",
            "Tue, 14 Nov 2023 22:13:20 UTC",
            "Tue, 31 Feb 2023 22:13:20 GMT",
            "Tue, 14 Nov 2023 24:13:20 GMT",
        ] {
            assert_eq!(parse_http_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_day_for_a_few_centuries() {
        for day in (0..200_000).step_by(7) {
            let text = http_date(day * DAY_SECONDS * 1000);
            assert_eq!(parse_http_date(&text), Some(day * DAY_SECONDS), "{text}");
        }
    }
}
