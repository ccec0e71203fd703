//! JSON, with the place of every value.
//!
//! `serde_json` keeps no places, and a YAML parser refuses what JSON allows (surrogate pairs, tabs
//! in front of a line, long keys), so this reads RFC 8259 itself: one pass, no recursion.

use std::sync::Arc;

use super::node::{Entry, Excerpt, Mark, Node, Style, Value};
use super::{Limits, unique};
use crate::diagnostic::{Diagnostic, code};

/// Reads one or more JSON values after each other, as `kubectl` does.
pub(super) fn parse(
    text: &str,
    file: &Arc<str>,
    limits: &Limits,
) -> Result<Vec<Node>, Vec<Diagnostic>> {
    let mut reader = Reader {
        rest: text,
        at: Mark { line: 1, column: 1 },
        file,
        limits,
        nodes: 0,
        duplicates: Vec::new(),
    };
    let mut documents = Vec::new();
    loop {
        reader.skip_space();
        if reader.rest.is_empty() {
            break;
        }
        documents.push(reader.value().map_err(|d| vec![*d])?);
    }
    if reader.duplicates.is_empty() {
        Ok(documents)
    } else {
        Err(reader.duplicates)
    }
}

enum Open {
    Sequence(Mark, Vec<Node>),
    Mapping {
        at: Mark,
        entries: Vec<Entry>,
        key: (String, Mark),
    },
}

struct Reader<'a> {
    rest: &'a str,
    at: Mark,
    file: &'a Arc<str>,
    limits: &'a Limits,
    nodes: usize,
    duplicates: Vec<Diagnostic>,
}

type Read<T> = Result<T, Box<Diagnostic>>;

impl Reader<'_> {
    /// One value with all that is in it; `stack` holds what is still open around it.
    fn value(&mut self) -> Read<Node> {
        let mut stack: Vec<Open> = Vec::new();
        loop {
            let mut done = self.start(&mut stack)?;
            // A finished value goes into what is open, which may finish that in turn.
            while let Some(node) = done.take() {
                self.nodes += 1;
                if self.nodes > self.limits.nodes {
                    return Err(Box::new(
                        code::TOO_LARGE
                            .at(
                                node.at.in_file(self.file),
                                format!("more than {} values in one file", self.limits.nodes),
                            )
                            .with_hint("split the file"),
                    ));
                }
                let Some(open) = stack.pop() else {
                    return Ok(node);
                };
                done = self.put(node, open, &mut stack)?;
            }
        }
    }

    /// Reads a scalar whole, or opens a collection (`None`).
    fn start(&mut self, stack: &mut Vec<Open>) -> Read<Option<Node>> {
        self.skip_space();
        let at = self.at;
        let value = match self.peek() {
            Some('{') => {
                self.bump();
                self.skip_space();
                if self.eat('}') {
                    Value::Mapping(Vec::new())
                } else {
                    self.check_depth(stack.len())?;
                    let key = self.key()?;
                    stack.push(Open::Mapping {
                        at,
                        entries: Vec::new(),
                        key,
                    });
                    return Ok(None);
                }
            }
            Some('[') => {
                self.bump();
                self.skip_space();
                if self.eat(']') {
                    Value::Sequence(Vec::new())
                } else {
                    self.check_depth(stack.len())?;
                    stack.push(Open::Sequence(at, Vec::new()));
                    return Ok(None);
                }
            }
            Some('"') => Value::String(self.string()?, Style::Inline),
            Some('-' | '0'..='9') => self.number()?,
            Some('a'..='z') => self.word()?,
            Some(other) => {
                return self.refuse(format!(
                    "unexpected `{}`",
                    Excerpt(other.encode_utf8(&mut [0; 4]))
                ));
            }
            None => return self.refuse("the text ends in the middle of a value"),
        };
        Ok(Some(Node { at, value }))
    }

    fn put(&mut self, node: Node, open: Open, stack: &mut Vec<Open>) -> Read<Option<Node>> {
        self.skip_space();
        match open {
            Open::Sequence(at, mut nodes) => {
                nodes.push(node);
                if self.eat(']') {
                    return Ok(Some(Node {
                        at,
                        value: Value::Sequence(nodes),
                    }));
                }
                self.expect(',', "`,` or `]`")?;
                stack.push(Open::Sequence(at, nodes));
                Ok(None)
            }
            Open::Mapping {
                at,
                mut entries,
                key: (key, key_at),
            } => {
                entries.push(Entry {
                    key,
                    key_at,
                    value: node,
                });
                if self.eat('}') {
                    unique::check(&entries, self.file, &mut self.duplicates);
                    return Ok(Some(Node {
                        at,
                        value: Value::Mapping(entries),
                    }));
                }
                self.expect(',', "`,` or `}`")?;
                self.skip_space();
                let key = self.key()?;
                stack.push(Open::Mapping { at, entries, key });
                Ok(None)
            }
        }
    }

    fn check_depth(&self, depth: usize) -> Read<()> {
        if depth < self.limits.depth {
            return Ok(());
        }
        Err(Box::new(
            code::TOO_DEEP
                .at(
                    self.at.in_file(self.file),
                    format!("more than {} levels of nesting", self.limits.depth),
                )
                .with_hint("no Kubernetes object nests this deep: look for a bracket gone wrong"),
        ))
    }

    fn key(&mut self) -> Read<(String, Mark)> {
        let at = self.at;
        if self.peek() != Some('"') {
            return self.refuse("a key must be a string in double quotes");
        }
        let key = self.string()?;
        self.skip_space();
        self.expect(':', "`:` after the key")?;
        Ok((key, at))
    }

    fn string(&mut self) -> Read<String> {
        let start = self.at;
        self.bump();
        let mut text = String::new();
        loop {
            let plain = self
                .rest
                .find(|c: char| c == '"' || c == '\\' || c < ' ')
                .unwrap_or(self.rest.len());
            let (run, rest) = self.rest.split_at_checked(plain).unwrap_or((self.rest, ""));
            text.push_str(run);
            self.at.column += u32::try_from(run.chars().count()).unwrap_or(u32::MAX);
            self.rest = rest;
            match self.peek() {
                Some('"') => {
                    self.bump();
                    return Ok(text);
                }
                Some('\\') => {
                    self.bump();
                    text.push(self.escape()?);
                }
                Some(_) => {
                    return self.refuse("a control character in a string: escape it, as in `\\n`");
                }
                None => {
                    self.at = start;
                    return self.refuse("a quoted string is never closed");
                }
            }
        }
    }

    /// What follows a backslash; surrogate pairs become one character.
    fn escape(&mut self) -> Read<char> {
        let Some(c) = self.peek() else {
            return self.refuse("the text ends in the middle of a string");
        };
        self.bump();
        Ok(match c {
            '"' | '\\' | '/' => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.hex()?;
                if (0xd800..0xdc00).contains(&first) {
                    if !(self.eat('\\') && self.eat('u')) {
                        return self.refuse("half of a surrogate pair: a second `\\u` must follow");
                    }
                    let second = self.hex()?;
                    if !(0xdc00..0xe000).contains(&second) {
                        return self.refuse("half of a surrogate pair: the second half is not one");
                    }
                    let joined = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                    return match char::from_u32(joined) {
                        Some(c) => Ok(c),
                        None => self.refuse("an escape that is no character"),
                    };
                }
                match char::from_u32(first) {
                    Some(c) => c,
                    None => return self.refuse("half of a surrogate pair"),
                }
            }
            _ => return self.refuse("an escape that JSON does not know"),
        })
    }

    fn hex(&mut self) -> Read<u32> {
        let digits = self
            .rest
            .get(..4)
            .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(value) = digits.and_then(|d| u32::from_str_radix(d, 16).ok()) else {
            return self.refuse("`\\u` wants four hexadecimal digits");
        };
        for _ in 0..4 {
            self.bump();
        }
        Ok(value)
    }

    fn number(&mut self) -> Read<Value> {
        let length = self
            .rest
            .find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'))
            .unwrap_or(self.rest.len());
        let text = self.rest.get(..length).unwrap_or_default();
        let valid = text.len() <= 400 && serde_json::from_str::<serde_json::Number>(text).is_ok();
        if !valid {
            return self.refuse(format!("`{}` is not a number", Excerpt(text)));
        }
        let value = match text.parse::<i128>() {
            Ok(value) => Value::Integer(value, text.into()),
            Err(_) => Value::Float(text.into()),
        };
        self.rest = self.rest.get(length..).unwrap_or_default();
        self.at.column += u32::try_from(length).unwrap_or(u32::MAX);
        Ok(value)
    }

    fn word(&mut self) -> Read<Value> {
        let length = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(self.rest.len());
        let text = self.rest.get(..length).unwrap_or_default();
        let value = match text {
            "true" => Value::Bool(true, "true".into()),
            "false" => Value::Bool(false, "false".into()),
            "null" => Value::Null,
            other => {
                return self.refuse(format!("unexpected `{}`", Excerpt(other)));
            }
        };
        self.rest = self.rest.get(length..).unwrap_or_default();
        self.at.column += u32::try_from(length).unwrap_or(u32::MAX);
        Ok(value)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn bump(&mut self) {
        let mut chars = self.rest.chars();
        if let Some(c) = chars.next() {
            if c == '\n' {
                self.at = Mark {
                    line: self.at.line + 1,
                    column: 1,
                };
            } else {
                self.at.column += 1;
            }
        }
        self.rest = chars.as_str();
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.bump();
        }
        found
    }

    fn expect(&mut self, c: char, words: &str) -> Read<()> {
        if self.eat(c) {
            return Ok(());
        }
        match self.peek() {
            Some(found) => self.refuse(format!(
                "expected {words}, found `{}`",
                Excerpt(found.encode_utf8(&mut [0; 4]))
            )),
            None => self.refuse(format!("expected {words}, found the end of the text")),
        }
    }

    fn skip_space(&mut self) {
        while let Some(' ' | '\t' | '\n' | '\r') = self.peek() {
            self.bump();
        }
    }

    fn refuse<T>(&self, message: impl std::fmt::Display) -> Read<T> {
        Err(Box::new(
            code::SYNTAX
                .at(
                    self.at.in_file(self.file),
                    format!("not valid JSON: {message}"),
                )
                .with_hint("check the brackets, commas and quotes before this place"),
        ))
    }
}
