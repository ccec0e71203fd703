//! `management`, `decision_log`, `otlp`: what is seen of the service, and from where.

mod otlp;

use std::path::Path;

use portcullis_authz::observe::Options;
use portcullis_authz::observe::fields::{Names, Query};
use portcullis_authz::observe::log::{self, Output, Rotation};
use portcullis_authz::observe::sample::Share;
use portcullis_policy::document::Node;

use super::read::Reader;

pub use otlp::read as otlp;

/// Reads `management`; the path of a unix socket is relative to `folder`.
pub fn management(reader: &mut Reader, node: &Node, folder: &Path, options: &mut Options) {
    for (name, node) in reader.fields(node, "management") {
        if name == "address" {
            options.management = reader.endpoint(node, folder);
        }
    }
}

/// Words of `decision_log.output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    None,
    Stdout,
    File,
    Otlp,
}

/// Reads `decision_log`; the path of the file is relative to `folder`.
pub fn decision_log(reader: &mut Reader, node: &Node, folder: &Path, options: &mut Options) {
    const KINDS: &[(&str, Kind)] = &[
        ("none", Kind::None),
        ("stdout", Kind::Stdout),
        ("file", Kind::File),
        ("otlp", Kind::Otlp),
    ];
    const QUERIES: &[(&str, Query)] = &[
        ("drop", Query::Drop),
        ("names", Query::Names),
        ("keep", Query::Keep),
    ];
    let mut kind = Kind::None;
    let mut file = None;
    let mut rotation = Rotation::default();
    let mut log = log::Options::new(Output::Stdout);
    let fields = reader.fields(node, "decision_log");
    for (name, node) in &fields {
        match *name {
            "output" => kind = reader.word(node, KINDS).unwrap_or(kind),
            "file" => file = reader.text(node, "a path").map(|path| folder.join(path)),
            "rotate_bytes" => {
                if let Some(bytes) = reader.bytes(node) {
                    rotation.bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
                }
            }
            "keep" => rotation.keep = reader.number(node, 1000).unwrap_or(rotation.keep),
            "allows" => log.allows = share(reader, node).unwrap_or(log.allows),
            "denies" => log.denies = share(reader, node).unwrap_or(log.denies),
            "queue" => match reader.number(node, 1 << 20) {
                Some(0) => {
                    let message = "a queue of nothing loses everything; write a number above 0";
                    reader.mistake(node.at, message.to_owned());
                }
                Some(most) => log.queue = usize::try_from(most).unwrap_or(log.queue),
                None => {}
            },
            "query" => options.fields.query = reader.word(node, QUERIES).unwrap_or_default(),
            "headers" => options.fields.headers = names(reader, node, true),
            "claims" => options.fields.claims = names(reader, node, false),
            "mask" => {
                let masked = reader.texts(node, "a name").into_iter();
                options.fields.masked = masked.map(str::to_owned).collect();
            }
            _ => {}
        }
    }
    // A header is masked in whatever case it was written.
    let lower: Vec<String> = options
        .fields
        .masked
        .iter()
        .map(|n| n.to_ascii_lowercase())
        .collect();
    options.fields.masked.extend(lower);
    if kind == Kind::File && file.is_none() {
        reader.mistake(node.at, "`output: file` needs a `file`".to_owned());
    }
    if let (Kind::None | Kind::Stdout | Kind::Otlp, Some(node)) = (kind, fields.get("file")) {
        let message = "`file` counts only with `output: file`";
        reader.mistake(node.at, message.to_owned());
    }
    let output = match kind {
        Kind::None => None,
        Kind::Stdout => Some(Output::Stdout),
        Kind::File => file.map(|file| Output::File(file, rotation)),
        Kind::Otlp => Some(Output::Otlp),
    };
    options.log = output.map(|output| log::Options { output, ..log });
}

fn names(reader: &mut Reader, node: &Node, headers: bool) -> Names {
    let mut names = Names::default();
    for text in reader.texts(node, "a name") {
        match text {
            "*" => names.all = true,
            name if headers => names.names.push(name.to_ascii_lowercase()),
            name => names.names.push(name.to_owned()),
        }
    }
    names
}

/// A percentage, such as `1%` or `0.05%`.
fn share(reader: &mut Reader, node: &Node) -> Option<Share> {
    let text = reader.text(node, "a percentage, such as `1%`,")?;
    let share = text.strip_suffix('%').and_then(millionths);
    if share.is_none() {
        let message = format!("`{text}` is no percentage from `0%` to `100%`, such as `0.5%`");
        reader.mistake(node.at, message);
    }
    share.map(Share::millionths)
}

fn millionths(percent: &str) -> Option<u32> {
    let (whole, fraction) = percent.split_once('.').unwrap_or((percent, "0"));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty();
    if !digits(whole) || !digits(fraction) || fraction.len() > 4 {
        return None;
    }
    let whole = whole.parse::<u32>().ok().filter(|whole| *whole <= 100)?;
    let fraction: u32 = format!("{fraction:0<4}").parse().ok()?;
    let millionths = whole * 10_000 + fraction;
    (millionths <= 1_000_000).then_some(millionths)
}

#[cfg(test)]
mod tests {
    use super::millionths;

    #[test]
    fn a_percentage_is_read_to_the_letter() {
        for (text, share) in [
            ("0", Some(0)),
            ("1", Some(10_000)),
            ("0.5", Some(5_000)),
            ("0.0001", Some(1)),
            ("100", Some(1_000_000)),
            ("100.0", Some(1_000_000)),
            ("100.0001", None),
            ("101", None),
            ("-1", None),
            ("1.", None),
            (".5", None),
            ("0.00001", None),
            ("", None),
        ] {
            assert_eq!(millionths(text), share, "{text}");
        }
    }
}
