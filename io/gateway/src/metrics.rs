//! Figures as OpenMetrics text.

use std::collections::BTreeMap;

use prometheus_client::encoding::text::encode as encode_text;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use prometheus_client::registry::Registry;

/// The content type of the answer.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How values spread: counted in ranges from the moment it is made. Clones count together.
#[derive(Clone, Debug)]
pub struct Spread(Histogram);

impl Spread {
    /// Seconds from a hundred microseconds to some ten seconds.
    pub fn of_seconds() -> Self {
        Self(Histogram::new([0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]))
    }

    /// Parts of a whole.
    pub fn of_parts() -> Self {
        Self(Histogram::new([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]))
    }

    /// Counts one more.
    pub fn observe(&self, value: f64) {
        self.0.observe(value);
    }
}

/// What a figure means.
#[derive(Clone, Debug)]
pub enum SampleKind {
    /// Only grows; shown with the suffix `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Sum, count and ranges.
    Spread(Spread),
}

/// One figure.
#[derive(Clone, Debug)]
pub struct Sample {
    name: &'static str,
    help: &'static str,
    kind: SampleKind,
    labels: Vec<(String, String)>,
    value: u64,
}

impl Sample {
    /// A figure that only grows.
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, help, kind: SampleKind::Counter, labels: Vec::new(), value }
    }

    /// A figure that goes up and down.
    pub fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, help, kind: SampleKind::Gauge, labels: Vec::new(), value }
    }

    /// How values spread; it has no labels.
    pub fn spread(name: &'static str, help: &'static str, spread: &Spread) -> Self {
        Self { name, help, kind: SampleKind::Spread(spread.clone()), labels: Vec::new(), value: 0 }
    }

    /// Adds a label; samples of one name must have the same label names.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Writes the samples; those of one name become one family.
pub(crate) fn encode(samples: Vec<Sample>) -> Result<String, std::fmt::Error> {
    let mut families: BTreeMap<&'static str, Vec<Sample>> = BTreeMap::new();
    for sample in samples {
        families.entry(sample.name).or_default().push(sample);
    }
    let mut registry = Registry::default();
    for (name, samples) in families {
        register(&mut registry, name, samples);
    }
    let mut text = String::new();
    encode_text(&mut text, &registry)?;
    Ok(text)
}

fn register(registry: &mut Registry, name: &str, samples: Vec<Sample>) {
    let (kind, help) = (samples[0].kind.clone(), samples[0].help);
    match (kind, samples.as_slice()) {
        (SampleKind::Spread(spread), _) => registry.register(name, help, spread.0),
        // A family without labels would be written with empty braces.
        (SampleKind::Counter, [only]) if only.labels.is_empty() => {
            let counter = Counter::<u64>::default();
            counter.inc_by(only.value);
            registry.register(name, help, counter);
        }
        (SampleKind::Gauge, [only]) if only.labels.is_empty() => {
            let gauge = Gauge::<i64>::default();
            gauge.set(i64::try_from(only.value).unwrap_or(i64::MAX));
            registry.register(name, help, gauge);
        }
        (SampleKind::Counter, _) => {
            let family = Family::<Vec<(String, String)>, Counter>::default();
            for sample in samples {
                family.get_or_create(&sample.labels).inc_by(sample.value);
            }
            registry.register(name, help, family);
        }
        (SampleKind::Gauge, _) => {
            let family = Family::<Vec<(String, String)>, Gauge>::default();
            for sample in samples {
                family.get_or_create(&sample.labels).set(i64::try_from(sample.value).unwrap_or(i64::MAX));
            }
            registry.register(name, help, family);
        }
    }
}
