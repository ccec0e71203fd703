//! The `portcullis` command: parse, dispatch, exit code.
//!
//! Everything that decides lives in `portcullis-policy`, everything that knows Envoy in
//! `portcullis-authz`; this crate reads flags, environment and `portcullis.yaml`, calls them, and
//! tells a person or a script what they answered.

mod admission;
mod args;
mod authz;
mod ca;
mod config;
mod crds;
mod dev;
mod diagnostics;
mod exit;
mod inputs;
mod kubectl;
mod logging;
mod out;
mod policy;
mod shutdown;
mod svid;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{AuthzCommand, Cli, Command, PolicyCommand};
use crate::exit::Exit;

/// Runs the command line of this process and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let asked = match kubectl::asked(&arguments) {
        Some(asked) => asked.map(Asked::Kubectl),
        None => Cli::try_parse_from(arguments).map(Asked::Portcullis),
    };
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => {
            // clap's own exit code for wrong usage is 2, which with us means "the answer is no".
            let exit = if error.use_stderr() {
                Exit::CouldNotRun
            } else {
                Exit::Yes
            };
            let _ = error.print();
            return exit.into();
        }
    };
    let answered = match asked {
        Asked::Kubectl(kubectl) => {
            out::set_color(kubectl.global.color);
            kubectl::run(kubectl)
        }
        Asked::Portcullis(cli) => {
            out::set_color(cli.global.color);
            run(cli)
        }
    };
    match answered {
        Ok(exit) => exit.into(),
        Err(_) if out::reader_gone() => Exit::Yes.into(),
        Err(error) => {
            out::report(format_args!(
                "{}error{}: {error:#}",
                out::BAD.render(),
                out::BAD.render_reset()
            ));
            Exit::CouldNotRun.into()
        }
    }
}

/// By which name the binary was called.
enum Asked {
    Kubectl(kubectl::Kubectl),
    Portcullis(Cli),
}

/// The command line as a plugin of kubectl.
#[must_use]
pub fn kubectl_command() -> clap::Command {
    kubectl::Kubectl::command()
}

/// The whole command line, for completions and for the test that compares it with its reference.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Every key of `portcullis.yaml`: path, type, default, meaning.
pub fn configuration_keys() -> impl Iterator<Item = &'static config::Key> {
    config::keys()
}

pub use config::Key;

fn run(cli: Cli) -> anyhow::Result<Exit> {
    let global = cli.global;
    match cli.command {
        Command::Policy(command) => {
            logging::start(
                global.log_level.as_deref().unwrap_or("warn"),
                global.log_format.unwrap_or_default(),
            )?;
            match command {
                PolicyCommand::Check(args) => policy::check::run(&args, global.output),
                PolicyCommand::Decide(args) => policy::decide::run(&args, global.output),
                PolicyCommand::Explain(args) => policy::explain::run(&args, global.output),
                PolicyCommand::Translate(args) => policy::translate::run(&args, global.output),
                PolicyCommand::Test(args) => policy::test::run(&args, global.output),
                PolicyCommand::ExplainCode { code } => {
                    policy::explain_code::run(code.as_deref(), global.output)
                }
            }
        }
        Command::Authz(AuthzCommand::Serve(args)) => authz::serve::run(&args, &global),
        Command::Authz(AuthzCommand::Config(args)) => authz::config::run(&args),
        Command::Authz(AuthzCommand::Tail(args)) => authz::tail::run(&args, global.output),
        Command::Authz(AuthzCommand::Top(args)) => authz::top::run(&args),
        Command::Admission(command) => admission::run(command, &global),
        Command::Crds => crds::run(global.output),
        Command::Ca(command) => ca::run(command, &global),
        Command::Svid(command) => svid::run(command, &global),
        Command::Dev(args) => dev::run(&args, &global),
        Command::DevService(args) => dev::service::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "portcullis", &mut script);
            let mut stdout = out::stdout();
            std::io::Write::write_all(&mut stdout, &script)?;
            std::io::Write::flush(&mut stdout)?;
            Ok(Exit::Yes)
        }
    }
}
