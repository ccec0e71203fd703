//! Standard output and standard error: colour only where it is wanted, quiet when the reader is gone.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

use crate::args::Color;

/// Set once a write found that the reader of standard output is gone (`| head`).
static READER_GONE: AtomicBool = AtomicBool::new(false);
/// The `--color` that was asked for, as an index into [`choice`]'s arms.
static CHOICE: AtomicU8 = AtomicU8::new(0);

/// For a denial, an error.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// For an allow, a clause that held.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
/// For a warning, a verdict that would change.
pub const CAUTION: Style = AnsiColor::Yellow.on_default().bold();
/// For what is beside the point: files, lines, notes.
pub const DIM: Style = Style::new().dimmed();
/// For headings.
pub const BOLD: Style = Style::new().bold();

/// Remembers `--color` for every stream opened later.
pub fn set_color(color: Color) {
    let index = match color {
        Color::Auto => 0,
        Color::Always => 1,
        Color::Never => 2,
    };
    CHOICE.store(index, Ordering::Relaxed);
}

fn choice() -> ColorChoice {
    match CHOICE.load(Ordering::Relaxed) {
        1 => ColorChoice::Always,
        2 => ColorChoice::Never,
        _ => ColorChoice::Auto,
    }
}

/// True when standard error shows colours.
#[must_use]
pub fn stderr_has_color() -> bool {
    match choice() {
        ColorChoice::Auto => AutoStream::choice(&io::stderr()) != ColorChoice::Never,
        other => other != ColorChoice::Never,
    }
}

/// True when a write to standard output failed because nobody reads it any more.
#[must_use]
pub fn reader_gone() -> bool {
    READER_GONE.load(Ordering::Relaxed)
}

/// Buffered standard output; styles are dropped where colour is not wanted.
#[must_use]
pub fn stdout() -> Out<io::BufWriter<AutoStream<io::Stdout>>> {
    Out(io::BufWriter::new(AutoStream::new(io::stdout(), choice())))
}

/// Standard error, unbuffered.
#[must_use]
pub fn stderr() -> AutoStream<io::Stderr> {
    AutoStream::new(io::stderr(), choice())
}

/// Writes to standard error; a standard error that is gone is nobody's loss.
pub fn report(text: impl std::fmt::Display) {
    let _ = writeln!(stderr(), "{text}");
}

/// A writer that remembers a broken pipe, so that the command can end without a word.
#[derive(Debug)]
pub struct Out<W>(W);

impl<W: Write> Write for Out<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        noticing(self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        noticing(self.0.flush())
    }
}

fn noticing<T>(result: io::Result<T>) -> io::Result<T> {
    if let Err(error) = &result
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        READER_GONE.store(true, Ordering::Relaxed);
    }
    result
}
