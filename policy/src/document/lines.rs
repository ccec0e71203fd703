//! Where the lines of a text start.

use super::node::Mark;

/// Line starts of a text, for questions about a line by its number.
pub(crate) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0)
            .chain(
                text.bytes()
                    .enumerate()
                    .filter(|(_, byte)| *byte == b'\n')
                    .map(|(offset, _)| offset + 1),
            )
            .collect();
        Self { text, starts }
    }

    /// The text of a 1-based line, without its end.
    pub(crate) fn line(&self, number: u32) -> Option<&'a str> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        let start = *self.starts.get(index)?;
        let end = self
            .starts
            .get(index + 1)
            .map_or(self.text.len(), |next| next - 1);
        let line = self.text.get(start..end)?;
        Some(line.strip_suffix('\r').unwrap_or(line))
    }

    /// The place of an offset in octets.
    pub(crate) fn mark(&self, offset: usize) -> Mark {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self
            .starts
            .get(line.saturating_sub(1))
            .copied()
            .unwrap_or_default();
        let column = self
            .text
            .get(start..offset)
            .map_or(0, |before| before.chars().count());
        let bounded = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Mark {
            line: bounded(line),
            column: bounded(column + 1),
        }
    }

    /// True when the white space in front of the line has a tab.
    pub(crate) fn indented_by_tab(&self, line: u32) -> bool {
        self.line(line).is_some_and(|text| {
            text.chars()
                .take_while(|c| c.is_ascii_whitespace())
                .any(|c| c == '\t')
        })
    }

    /// The mark itself, or the end of the text if it lies beyond.
    pub(crate) fn clamp(&self, mark: Mark) -> Mark {
        let empty_end = self
            .line(mark.line)
            .is_none_or(|text| text.is_empty() && mark.column <= 1)
            && usize::try_from(mark.line).unwrap_or(usize::MAX) >= self.starts.len();
        if !empty_end {
            return mark;
        }
        self.mark(self.text.trim_end().len())
    }
}
