//! A YAML file as a tree in which everything remembers where it stood.
//!
//! A configuration needs no anchors, tags or several documents: they are refused, and with them
//! every way to make a small file large.

use std::fmt;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Deepest nesting accepted; `portcullis.yaml` itself needs five levels.
const MAX_DEPTH: usize = 32;

/// 1-based line and column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value and where it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it starts.
    pub at: At,
    /// The value.
    pub value: Value,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar; `plain` when it was written without quotes.
    Scalar {
        /// Its text.
        text: String,
        /// Without quotes, so that `true` is a boolean and `5` a number.
        plain: bool,
    },
    /// A list.
    Sequence(Vec<Node>),
    /// A mapping, in the order of the file.
    Mapping(Vec<(Name, Node)>),
}

/// A mapping's key and where it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The key.
    pub text: String,
    /// Where it starts.
    pub at: At,
}

/// A mistake and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub at: At,
    /// What, and what to do.
    pub message: String,
}

/// Parses `text`; an empty file is an empty mapping.
///
/// # Errors
/// The first thing that is not YAML, or that a configuration may not use.
pub fn parse(text: &str) -> Result<Node, Mistake> {
    let mut events = Events {
        parser: Parser::new_from_str(text),
    };
    let mut root = Node {
        at: At { line: 1, column: 1 },
        value: Value::Mapping(Vec::new()),
    };
    let mut documents = 0;
    loop {
        let (event, at) = events.next()?;
        match event {
            Event::StreamEnd => return Ok(root),
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err(Mistake {
                        at,
                        message: "a second document; a configuration is one".to_owned(),
                    });
                }
                let (first, at) = events.next()?;
                let node = events.node(first, at, 0)?;
                if node.value != Value::Null {
                    root = node;
                }
            }
            _ => {}
        }
    }
}

struct Events<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
}

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<(Event<'a>, At), Mistake> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, start(span))),
            Some(Err(error)) => Err(Mistake {
                at: At {
                    line: error.marker().line(),
                    column: error.marker().col() + 1,
                },
                message: format!("not YAML: {}", error.info()),
            }),
            None => Ok((Event::StreamEnd, At::default())),
        }
    }

    fn node(&mut self, event: Event<'a>, at: At, depth: usize) -> Result<Node, Mistake> {
        let refuse = |message: &str| {
            Err(Mistake {
                at,
                message: message.to_owned(),
            })
        };
        if depth > MAX_DEPTH {
            return refuse("nested too deeply");
        }
        let value = match event {
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                return refuse("an anchor; write the value where it is needed");
            }
            Event::Alias(_) => return refuse("an alias; write the value out"),
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => return refuse("a tag; write the plain value"),
            Event::Scalar(text, style, ..) => {
                let plain = style == ScalarStyle::Plain;
                if plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
                    Value::Null
                } else {
                    Value::Scalar {
                        text: text.into_owned(),
                        plain,
                    }
                }
            }
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    let (event, at) = self.next()?;
                    if matches!(event, Event::SequenceEnd | Event::StreamEnd) {
                        break Value::Sequence(items);
                    }
                    items.push(self.node(event, at, depth + 1)?);
                }
            }
            Event::MappingStart(..) => self.mapping(depth)?,
            _ => Value::Null,
        };
        Ok(Node { at, value })
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, Mistake> {
        let mut entries: Vec<(Name, Node)> = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::MappingEnd | Event::StreamEnd) {
                return Ok(Value::Mapping(entries));
            }
            let key = self.node(event, at, depth + 1)?;
            let Value::Scalar { text, .. } = key.value else {
                return Err(Mistake {
                    at,
                    message: "a key that is not a word".to_owned(),
                });
            };
            if let Some((first, _)) = entries.iter().find(|(name, _)| name.text == text) {
                return Err(Mistake {
                    at,
                    message: format!("key `{text}` is there already, at line {}", first.at.line),
                });
            }
            let (event, value_at) = self.next()?;
            let node = self.node(event, value_at, depth + 1)?;
            entries.push((Name { text, at }, node));
        }
    }
}

fn start(span: Span) -> At {
    At {
        line: span.start.line(),
        column: span.start.col() + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let mistake = parse(text).unwrap_err();
        format!("{}: {}", mistake.at, mistake.message)
    }

    #[test]
    fn remembers_where_keys_and_values_stood() {
        let Value::Mapping(entries) = parse("# c\na: 1\nbb:\n  - \"x\"\n").unwrap().value else {
            panic!("a mapping");
        };
        assert_eq!(entries[1].0.at, At { line: 3, column: 1 });
        let Value::Sequence(items) = &entries[1].1.value else {
            panic!("a list");
        };
        assert_eq!(items[0].at, At { line: 4, column: 5 });
    }

    #[test]
    fn refuses_what_a_configuration_does_not_need() {
        assert_eq!(
            refused("a: &x 1\nb: *x\n"),
            "1:7: an anchor; write the value where it is needed"
        );
        assert_eq!(
            refused("a: 1\na: 2\n"),
            "2:1: key `a` is there already, at line 1"
        );
        assert_eq!(
            refused("a: 1\n---\nb: 2\n"),
            "2:1: a second document; a configuration is one"
        );
        assert!(refused("a: [1\n").contains("not YAML"));
        assert!(refused(&"[".repeat(1000)).contains("nested too deeply"));
        assert_eq!(parse("").unwrap().value, Value::Mapping(Vec::new()));
    }
}
