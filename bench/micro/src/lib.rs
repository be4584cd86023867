//! Numbers from rounds that take turns, so that a machine that slows down slows all of them down.

use std::time::Duration;

/// The middle one of some figures.
///
/// # Panics
/// When there are none.
pub fn median(figures: &[f64]) -> f64 {
    quantile(figures, 0.5)
}

/// The figure that the part `at` (0 to 1) of all does not exceed.
///
/// # Panics
/// When there are none.
pub fn quantile(figures: &[f64], at: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (at * (sorted.len() - 1) as f64).round() as usize;
    sorted[index]
}

/// Processor time that this process has used so far, both ends and the system's share included; zero where the system
/// does not tell. In steps of 10 ms.
pub fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything: user and system time are the 12th and 13th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().skip(11).take(2);
    Duration::from_millis(fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10)
}

/// MiB per second.
pub fn rate(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / f64::from(1 << 20) / took.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_unsorted_figures() {
        let figures = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!((median(&figures), quantile(&figures, 0.0), quantile(&figures, 1.0)), (3.0, 1.0, 5.0));
        assert_eq!(rate(3 << 20, Duration::from_millis(1500)), 2.0);
    }
}
