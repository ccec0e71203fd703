//! Reads what `/metrics` shows: the text format of OpenMetrics, as far as a viewer needs it.

use std::collections::BTreeMap;

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name, with the suffix of its kind (`_total`, `_bucket`).
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

impl Sample {
    /// A label's value; empty when it is not there.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// The samples of a scrape; lines that are none are passed over.
pub fn samples(text: &str) -> impl Iterator<Item = Sample> {
    text.lines().filter_map(sample)
}

fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at_checked(end)?;
    let mut labels = BTreeMap::new();
    let rest = match rest.strip_prefix('{') {
        Some(mut rest) => loop {
            rest = rest.trim_start_matches([',', ' ']);
            if let Some(rest) = rest.strip_prefix('}') {
                break rest;
            }
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(label.to_owned(), value);
            rest = after;
        },
        None => rest,
    };
    Some(Sample {
        name: name.to_owned(),
        labels,
        value: rest.split_ascii_whitespace().next()?.parse().ok()?,
    })
}

/// A value whose opening quote is behind us, and what follows its closing one.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_and_everything_else_is_passed_over() {
        let text = "# HELP a_total Things.\n# TYPE a counter\na_total 3\n\
                    b{x=\"1\",y=\"a \\\"b\\\", \\\\ c\\n\"} 2.5 1700000000\nh_bucket{le=\"+Inf\"} 7\n\
                    garbage\nbroken{x=\"1} 2\nnot_a_number x\n# EOF\n";
        let all: Vec<Sample> = samples(text).collect();
        let short: Vec<(&str, f64)> = all.iter().map(|s| (s.name.as_str(), s.value)).collect();
        assert_eq!(short, [("a_total", 3.0), ("b", 2.5), ("h_bucket", 7.0)]);
        assert_eq!(all[1].label("y"), "a \"b\", \\ c\n");
        assert_eq!(all[2].label("le"), "+Inf");
        assert_eq!(all[0].label("x"), "");
    }
}
