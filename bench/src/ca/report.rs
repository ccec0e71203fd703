//! What was wanted, what was measured, and whether that is enough.

use std::time::Duration;

/// Every line of the report.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    what: String,
    wanted: String,
    measured: String,
    reached: Option<bool>,
}

impl Report {
    /// A figure that is not to be above `most`.
    pub fn at_most(&mut self, what: &str, unit: Unit, most: f64, measured: f64) {
        self.add(
            what,
            format!("<= {}", unit.show(most)),
            unit.show(measured),
            Some(measured <= most),
        );
    }

    /// A figure that is not to be below `least`.
    pub fn at_least(&mut self, what: &str, unit: Unit, least: f64, measured: f64) {
        self.add(
            what,
            format!(">= {}", unit.show(least)),
            unit.show(measured),
            Some(measured >= least),
        );
    }

    /// A figure that nothing is promised of.
    pub fn tell(&mut self, what: &str, unit: Unit, measured: f64) {
        self.add(what, String::new(), unit.show(measured), None);
    }

    fn add(&mut self, what: &str, wanted: String, measured: String, reached: Option<bool>) {
        eprintln!(
            "{what}: {measured} {}",
            if wanted.is_empty() {
                String::new()
            } else {
                format!("(wanted {wanted})")
            }
        );
        self.rows.push(Row {
            what: what.to_owned(),
            wanted,
            measured,
            reached,
        });
    }

    /// Prints everything as Markdown.
    pub fn print(&self) {
        println!("\n| what | wanted | measured | reached |\n|---|---|---|---|");
        for row in &self.rows {
            let reached = match row.reached {
                None => "",
                Some(true) => "yes",
                Some(false) => "**no**",
            };
            println!(
                "| {} | {} | {} | {reached} |",
                row.what, row.wanted, row.measured
            );
        }
    }
}

/// What a figure counts.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    /// Seconds, shown as milliseconds.
    Millis,
    /// Seconds, shown as microseconds.
    Micros,
    /// Seconds.
    Seconds,
    /// In a second.
    Rate,
    /// Bytes, shown as megabytes of a million.
    Megabytes,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Millis => format!("{:.1} ms", value * 1e3),
            Self::Micros => format!("{:.0} us", value * 1e6),
            Self::Seconds => format!("{value:.2} s"),
            Self::Rate => format!("{value:.0}/s"),
            Self::Megabytes => format!("{:.1} MB", value / 1e6),
        }
    }
}

/// A share of sorted measurements: 0.5 is the median.
pub fn quantile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    let place = (share * last as f64).ceil() as usize;
    times
        .get(place.min(last))
        .map_or(f64::NAN, Duration::as_secs_f64)
}

/// The median.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
