//! Figures as OpenMetrics text.

use std::collections::BTreeMap;

use prometheus_client::encoding::text::encode as encode_text;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use prometheus_client::registry::Registry;

/// The content type of the answer.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a figure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleKind {
    /// Only grows; shown with the suffix `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    let (kind, help) = (samples[0].kind, samples[0].help);
    match (kind, samples.as_slice()) {
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
