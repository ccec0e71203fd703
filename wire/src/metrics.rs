//! Metrics as both services show them: a table that says what there is, a histogram that never locks, and
//! the OpenMetrics text that Prometheus reads.

mod latency;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text as format};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

pub use self::latency::{Latency, Observed};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; shown with `_total`.
    Counter,
    /// A value of now.
    Gauge,
    /// Shown as `_bucket`, `_sum` and `_count`.
    Histogram,
}

impl Kind {
    /// Prometheus' word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Stands before the name: `portcullis_` and the service.
    pub prefix: &'static str,
    /// Name without prefix and without a counter's `_total`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels, each with the values that it can have.
    pub labels: &'static [(&'static str, &'static str)],
    /// What it means.
    pub meaning: &'static str,
}

impl Definition {
    /// The name as queries write it; of a histogram, without a suffix.
    #[must_use]
    pub fn full_name(&self) -> String {
        let total = match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{}{}{total}", self.prefix, self.name)
    }
}

/// The values of one metric's labels, in the order of its definition.
pub type Values = Vec<String>;

/// The samples of one metric.
#[derive(Debug)]
pub enum Samples {
    /// Of counters.
    Counters(Vec<(Values, u64)>),
    /// Of gauges.
    Gauges(Vec<(Values, f64)>),
    /// Of histograms.
    Latencies(Vec<(Values, Observed)>),
}

/// The text for one scrape: every metric with its samples, read once.
#[must_use]
pub fn text(gathered: Vec<(&'static Definition, Samples)>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Gathered(gathered)));
    let mut text = String::new();
    // Only a writer fails, and a string does not.
    let _ = format::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Gathered(Vec<(&'static Definition, Samples)>);

impl Collector for Gathered {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (definition, samples) in &self.0 {
            let kind = match definition.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let name = format!("{}{}", definition.prefix, definition.name);
            let mut metric = encoder.encode_descriptor(&name, definition.meaning, None, kind)?;
            match samples {
                Samples::Counters(samples) => {
                    each(&mut metric, definition, samples, |m, value| {
                        m.encode_counter::<NoLabelSet, _, u64>(value, None)
                    })?
                }
                Samples::Gauges(samples) => each(&mut metric, definition, samples, |m, value| {
                    m.encode_gauge(value)
                })?,
                Samples::Latencies(samples) => {
                    each(&mut metric, definition, samples, |m, seen| {
                        m.encode_histogram::<NoLabelSet>(seen.sum, seen.count, &seen.buckets, None)
                    })?
                }
            }
        }
        Ok(())
    }
}

/// Encodes each sample with its labels.
fn each<T>(
    metric: &mut MetricEncoder<'_>,
    definition: &Definition,
    samples: &[(Values, T)],
    encode: impl Fn(&mut MetricEncoder<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (values, value) in samples {
        if definition.labels.is_empty() {
            encode(metric, value)?;
            continue;
        }
        let names = definition.labels.iter().map(|(name, _)| *name);
        let labels: Vec<(&str, String)> = names.zip(values.iter().cloned()).collect();
        encode(&mut metric.encode_family(&labels)?, value)?;
    }
    Ok(())
}
