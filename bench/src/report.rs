//! Medians, and a table of them.

use std::time::Duration;

use crate::load::Measured;

/// The measurements of one contender under one kind of requests.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// As fast as answers come.
    pub full: Vec<Measured>,
    /// At half the rate of the server that decides nothing.
    pub half: Vec<Measured>,
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

impl Row {
    /// A row without measurements.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Answers in a second.
    pub fn rate(&self) -> f64 {
        median(self.full.iter().map(|one| one.rate))
    }

    /// The server's microseconds for one answer.
    pub fn cpu(&self) -> f64 {
        median(self.full.iter().map(|one| micros(one.cpu)))
    }

    fn p99_at_half(&self) -> f64 {
        median(self.half.iter().map(|one| micros(one.p99)))
    }
}

/// Prints `rows` as Markdown; the first is what the others are compared with.
pub fn table(title: &str, rows: &[Row]) {
    let Some(null) = rows.first() else { return };
    println!("\n### {title}\n");
    println!(
        "| | answers/s | of null | p50 / p99 | p50 / p99 at half of null's rate | p99 there, x null | CPU per answer |"
    );
    println!("|---|---|---|---|---|---|---|");
    for row in rows {
        let of = |list: &[Measured], pick: fn(&Measured) -> Duration| {
            median(list.iter().map(|one| micros(pick(one))))
        };
        println!(
            "| {} | {:.0} | {:.0} % | {:.0} / {:.0} us | {:.0} / {:.0} us | {:.2} | {:.1} us |",
            row.name,
            row.rate(),
            100.0 * row.rate() / null.rate(),
            of(&row.full, |one| one.p50),
            of(&row.full, |one| one.p99),
            of(&row.half, |one| one.p50),
            of(&row.half, |one| one.p99),
            row.p99_at_half() / null.p99_at_half(),
            row.cpu(),
        );
    }
}
