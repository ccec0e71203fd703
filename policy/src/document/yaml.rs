//! YAML: the parser's events become trees of [`Node`]s.
//!
//! Anchors, aliases and merge keys are expanded here, within a budget, so that whoever walks a tree
//! meets neither cycles nor bombs.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};

use super::node::{Entry, Excerpt, Mark, Node, Style, Value};
use super::scalar;
use super::{Limits, Lines, unique};
use crate::diagnostic::{Diagnostic, code};

/// Reads every document of `text`.
pub(super) fn parse(
    text: &str,
    file: &Arc<str>,
    limits: &Limits,
) -> Result<Vec<Node>, Vec<Diagnostic>> {
    let mut builder = Builder {
        file,
        limits,
        documents: Vec::new(),
        stack: Vec::new(),
        anchors: FxHashMap::default(),
        nodes: 0,
        expanded: 0,
        duplicates: Vec::new(),
    };
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => builder.event(event, span).map_err(|d| vec![*d])?,
            Err(error) => {
                return Err(vec![builder.syntax_error(&error, &Lines::new(text))]);
            }
        }
    }
    if builder.duplicates.is_empty() {
        Ok(builder.documents)
    } else {
        Err(builder.duplicates)
    }
}

type Read<T> = Result<T, Box<Diagnostic>>;

/// A collection that is still open.
struct Open {
    at: Mark,
    anchor: usize,
    content: Content,
}

enum Content {
    Sequence(Vec<Node>),
    Mapping {
        entries: Vec<Entry>,
        merges: Vec<Merge>,
        key: Option<Key>,
    },
}

/// A `<<` entry: what it merges, and how many explicit entries stood before it.
struct Merge {
    at: Mark,
    value: Node,
    after: usize,
}

enum Key {
    Named { key: String, at: Mark },
    Merge(Mark),
}

struct Builder<'a> {
    file: &'a Arc<str>,
    limits: &'a Limits,
    documents: Vec<Node>,
    stack: Vec<Open>,
    /// Finished anchored nodes of this document, with their weight.
    anchors: FxHashMap<usize, (Node, usize)>,
    nodes: usize,
    expanded: usize,
    duplicates: Vec<Diagnostic>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Read<()> {
        let at = mark(span.start);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::SequenceStart(anchor, tag) => {
                self.collection_tag(tag.as_deref(), at, "seq")?;
                self.open(at, anchor, Content::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.collection_tag(tag.as_deref(), at, "map")?;
                let content = Content::Mapping {
                    entries: Vec::new(),
                    merges: Vec::new(),
                    key: None,
                };
                self.open(at, anchor, content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(id) => {
                let node = self.alias(id, at)?;
                self.add(node, 0)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_merge =
                    text == "<<" && style == ScalarStyle::Plain && tag.is_none() && anchor == 0;
                if is_merge && self.expects_key() {
                    return self.merge_key(at);
                }
                let value = self.scalar(text.into_owned(), style, tag.as_deref(), at)?;
                self.add(Node { at, value }, anchor)
            }
        }
    }

    fn open(&mut self, at: Mark, anchor: usize, content: Content) -> Read<()> {
        if self.stack.len() >= self.limits.depth {
            return Err(code::TOO_DEEP
                .at(
                    at.in_file(self.file),
                    format!("more than {} levels of nesting", self.limits.depth),
                )
                .with_hint("no Kubernetes object nests this deep: look for a bracket or indentation gone wrong").into());
        }
        self.stack.push(Open {
            at,
            anchor,
            content,
        });
        Ok(())
    }

    fn close(&mut self) -> Read<()> {
        let Some(open) = self.stack.pop() else {
            return Ok(());
        };
        let value = match open.content {
            Content::Sequence(nodes) => Value::Sequence(nodes),
            Content::Mapping {
                entries, merges, ..
            } => {
                let mut entries = entries;
                unique::check(&entries, self.file, &mut self.duplicates);
                for merge in merges {
                    self.merge(&mut entries, merge)?;
                }
                Value::Mapping(entries)
            }
        };
        self.add(Node { at: open.at, value }, open.anchor)
    }

    /// Puts a finished node where it belongs.
    fn add(&mut self, node: Node, anchor: usize) -> Read<()> {
        self.nodes += 1;
        if self.nodes > self.limits.nodes {
            return Err(code::TOO_LARGE
                .at(
                    node.at.in_file(self.file),
                    format!("more than {} values in one file", self.limits.nodes),
                )
                .with_hint("split the file")
                .into());
        }
        if anchor != 0 {
            let weight = weight(&node);
            self.expand(weight, node.at)?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        let Some(open) = self.stack.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        match &mut open.content {
            Content::Sequence(nodes) => nodes.push(node),
            Content::Mapping {
                entries,
                merges,
                key,
            } => match key.take() {
                None => {
                    let at = node.at;
                    let Some(name) = key_text(&node) else {
                        return Err(code::SYNTAX
                            .at(
                                at.in_file(self.file),
                                format!("a key must be a string, found {}", node.described()),
                            )
                            .with_hint("write the key as plain or quoted text")
                            .into());
                    };
                    *key = Some(Key::Named { key: name, at });
                }
                Some(Key::Named { key, at }) => entries.push(Entry {
                    key,
                    key_at: at,
                    value: node,
                }),
                Some(Key::Merge(at)) => merges.push(Merge {
                    at,
                    value: node,
                    after: entries.len(),
                }),
            },
        }
        Ok(())
    }

    fn expects_key(&self) -> bool {
        matches!(
            self.stack.last().map(|open| &open.content),
            Some(Content::Mapping { key: None, .. })
        )
    }

    fn merge_key(&mut self, at: Mark) -> Read<()> {
        if let Some(Open {
            content: Content::Mapping { key, .. },
            ..
        }) = self.stack.last_mut()
        {
            *key = Some(Key::Merge(at));
        }
        Ok(())
    }

    /// Copies what `<<` names into `entries`; explicit keys win, and of several sources the first.
    fn merge(&mut self, entries: &mut Vec<Entry>, merge: Merge) -> Read<()> {
        let refuse = |message: String, hint: &str| {
            Err(code::MERGE_KEY
                .at(merge.at.in_file(self.file), message)
                .with_hint(hint)
                .into())
        };
        let sources = match merge.value.value {
            Value::Mapping(source) => vec![source],
            Value::Sequence(nodes) => {
                let mut sources = Vec::with_capacity(nodes.len());
                for node in nodes {
                    match node.value {
                        Value::Mapping(source) => sources.push(source),
                        _ => {
                            return refuse(
                                "`<<` merges something that is not an object".to_owned(),
                                "merge an object: `<<: *anchor`",
                            );
                        }
                    }
                }
                sources
            }
            _ => {
                return refuse(
                    "`<<` merges something that is not an object".to_owned(),
                    "merge an object: `<<: *anchor`",
                );
            }
        };
        for source in sources {
            let mut known: FxHashMap<String, usize> = entries
                .iter()
                .enumerate()
                .map(|(index, entry)| (entry.key.clone(), index))
                .collect();
            // Each pass costs as much as the mapping is long.
            self.expanded += entries.len();
            for entry in source {
                match known.get(&entry.key) {
                    // Readers differ on who wins when the explicit key came first.
                    Some(index) if *index < merge.after => {
                        return refuse(
                            format!(
                                "`<<` comes after the key `{}`, which it also sets",
                                Excerpt(&entry.key)
                            ),
                            "put `<<` first: YAML readers disagree on which of the two wins",
                        );
                    }
                    Some(_) => {}
                    None => {
                        known.insert(entry.key.clone(), entries.len());
                        entries.push(entry);
                    }
                }
            }
        }
        self.expand(0, merge.at)
    }

    fn alias(&mut self, id: usize, at: Mark) -> Read<Node> {
        let Some((node, weight)) = self.anchors.get(&id) else {
            return Err(code::ALIAS
                .at(
                    at.in_file(self.file),
                    "an alias to an anchor that is not finished or not in this document",
                )
                .with_hint("define the anchor before its first use, in the same document")
                .into());
        };
        let (node, weight) = (node.clone(), *weight);
        self.expand(weight, at)?;
        Ok(node)
    }

    /// Counts copied nodes (and their text) against the budget.
    fn expand(&mut self, weight: usize, at: Mark) -> Read<()> {
        self.expanded += weight;
        if self.expanded <= self.limits.expanded {
            return Ok(());
        }
        Err(code::ALIAS
            .at(
                at.in_file(self.file),
                format!(
                    "aliases expand to more than {} values",
                    self.limits.expanded
                ),
            )
            .with_hint("write the repeated part out, or split the file")
            .into())
    }

    fn scalar(&self, text: String, style: ScalarStyle, tag: Option<&Tag>, at: Mark) -> Read<Value> {
        let kind = tag.map(tag_name);
        match kind.as_deref() {
            None if style == ScalarStyle::Plain => Ok(scalar::resolve(&text)),
            None | Some("!" | "str") => {
                let style = match style {
                    ScalarStyle::Literal => literal(&text, at),
                    _ => Style::Inline,
                };
                Ok(Value::String(text, style))
            }
            Some("null") => Ok(Value::Null),
            Some("bool") => scalar::boolean(&text)
                .map(|value| Value::Bool(value, text.as_str().into()))
                .ok_or_else(|| self.bad_tag("bool", &text, at)),
            Some(kind @ ("int" | "float")) => {
                scalar::number(&text).ok_or_else(|| self.bad_tag(kind, &text, at))
            }
            Some(other) => Err(code::TAG
                .at(
                    at.in_file(self.file),
                    format!("tag `{}` is not supported", Excerpt(other)),
                )
                .with_hint("write the value without a tag")
                .into()),
        }
    }

    fn bad_tag(&self, kind: &str, text: &str, at: Mark) -> Box<Diagnostic> {
        code::TAG
            .at(
                at.in_file(self.file),
                format!("`{}` is not what its tag `!!{kind}` says", Excerpt(text)),
            )
            .with_hint("write the value without a tag")
            .into()
    }

    fn collection_tag(&self, tag: Option<&Tag>, at: Mark, expected: &str) -> Read<()> {
        match tag.map(tag_name) {
            None => Ok(()),
            Some(name) if name == expected || name == "!" => Ok(()),
            Some(name) => Err(code::TAG
                .at(
                    at.in_file(self.file),
                    format!("tag `{}` is not supported", Excerpt(&name)),
                )
                .with_hint("write the value without a tag")
                .into()),
        }
    }

    fn syntax_error(&self, error: &ScanError, lines: &Lines<'_>) -> Diagnostic {
        let at = lines.clamp(mark(*error.marker()));
        let info = error.info();
        let (message, hint): (String, &str) = if info.contains("recursion limit") {
            return code::TOO_DEEP
                .at(at.in_file(self.file), "brackets are nested too deep")
                .with_hint("no Kubernetes object nests this deep: look for a bracket gone wrong");
        } else if info.contains("tab") || lines.indented_by_tab(at.line) {
            (
                "a tab where YAML wants spaces".to_owned(),
                "indent with spaces, never with tabs",
            )
        } else if info.contains("quoted scalar, found unexpected end")
            || info.contains("quoted scalar, found unexpected document")
        {
            (
                "a quoted string is never closed".to_owned(),
                "add the closing quote",
            )
        } else if info.contains("indentation in quoted scalar") {
            (
                "a quoted string is not closed on its line, and the next line is not indented"
                    .to_owned(),
                "add the closing quote",
            )
        } else if info.contains("unknown anchor") {
            return code::ALIAS
                .at(at.in_file(self.file), "an alias to an anchor that does not exist")
                .with_hint("define the anchor before its first use; quote the value if the `*` belongs to it");
        } else if info.contains("unknown escape")
            || info.contains("hexadecimal")
            || info.contains("escape code")
        {
            (
                "an escape that YAML does not know in a double-quoted string".to_owned(),
                "double the backslash, or use single quotes",
            )
        } else if info.contains("mapping values are not allowed") {
            (
                "`:` is not allowed here".to_owned(),
                "quote the value, or check the indentation of this line",
            )
        } else if info.contains("expected ',' or") || info.contains("flow construct") {
            (
                "a `[` or `{` is not closed, or a comma is missing".to_owned(),
                "close the bracket; quote a value that holds `[`, `]`, `{`, `}` or `,`",
            )
        } else if info.contains("simple key")
            || info.contains("expected key")
            || info.contains("indentation")
            || info.contains("'-' indicator")
        {
            (
                format!("not valid YAML: {info}"),
                "check the indentation of this line and the `:` after the key",
            )
        } else {
            (
                format!("not valid YAML: {info}"),
                "check this line and the one before it",
            )
        };
        code::SYNTAX
            .at(at.in_file(self.file), message)
            .with_hint(hint)
    }
}

/// The parser's mark of a block stands at its first character that is not blank.
fn literal(text: &str, at: Mark) -> Style {
    let blank = text.bytes().take_while(|b| *b == b'\n').count();
    let blank = u32::try_from(blank).unwrap_or(u32::MAX);
    Style::Literal {
        line: at.line.saturating_sub(blank),
        indent: at.column.saturating_sub(1),
    }
}

/// `str` for `!!str`; other tags as written.
fn tag_name(tag: &Tag) -> String {
    if tag.is_yaml_core_schema() {
        tag.suffix.clone()
    } else if tag.suffix.is_empty() {
        tag.handle.clone()
    } else {
        tag.to_string()
    }
}

/// The key as JSON would have it; `None` for what cannot be one.
fn key_text(node: &Node) -> Option<String> {
    match &node.value {
        Value::String(text, _) => Some(text.clone()),
        Value::Integer(value, _) => Some(value.to_string()),
        Value::Bool(value, _) => Some(value.to_string()),
        Value::Float(text) => Some(text.to_string()),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) => None,
    }
}

/// How much a copy of the node costs: one for each value, and one more for every 64 octets of text.
fn weight(node: &Node) -> usize {
    match &node.value {
        Value::String(text, _) => 1 + text.len() / 64,
        Value::Sequence(nodes) => 1 + nodes.iter().map(weight).sum::<usize>(),
        Value::Mapping(entries) => {
            1 + entries
                .iter()
                .map(|entry| 1 + entry.key.len() / 64 + weight(&entry.value))
                .sum::<usize>()
        }
        _ => 1,
    }
}

fn mark(marker: Marker) -> Mark {
    let bounded = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Mark {
        line: bounded(marker.line()),
        column: bounded(marker.col().saturating_add(1)),
    }
}
