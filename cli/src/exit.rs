//! Exit codes, the same for every command.

use std::process::ExitCode;

/// What a command's exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: the answer is yes, or nothing was found wrong.
    Yes,
    /// 1: the command could not run: wrong usage, a missing path, a socket that is taken.
    CouldNotRun,
    /// 2: the answer is no: a denial, errors in documents.
    No,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Yes => Self::SUCCESS,
            Exit::CouldNotRun => Self::from(1),
            Exit::No => Self::from(2),
        }
    }
}
