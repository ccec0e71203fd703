//! `portcullis authz config`: the proxy's side, filled in from the configuration.
//!
//! What is printed is what `deploy/proxies` ships and the tests run, with the address, the path mode and
//! the workload of this configuration in place of the example's.

mod fill;
mod snippet;

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use portcullis_authz::http::Dialect;

use crate::args::{ConfigArgs, ProxyArg};
use crate::config::{Config, Listener};
use crate::exit::Exit;
use crate::out;

/// Prints the files, or writes them into a folder. What the configuration lacks for them to work is
/// told on standard error.
///
/// # Errors
/// When no listener speaks what the proxy asks in, or it cannot ask where the listener is.
pub fn run(args: &ConfigArgs) -> anyhow::Result<Exit> {
    let config = Config::load(args.config.config.as_deref())?;
    let listener = listener(&config, args)?;
    let snippet = snippet::of(args.proxy, &listener);
    let files = fill::files(&snippet, &listener, &config)?;
    match &args.into {
        Some(folder) => write(folder, &files)?,
        None => print(&files)?,
    }
    for note in fill::notes(&snippet, &listener, &config) {
        eprintln!("note: {note}");
    }
    Ok(Exit::Yes)
}

/// The listener that the proxy is to ask: the one that is named, else the first that it can.
fn listener(config: &Config, args: &ConfigArgs) -> anyhow::Result<Listener> {
    let defaults = [Listener::default()];
    let all = match config.listeners.as_slice() {
        [] => defaults.as_slice(),
        listeners => listeners,
    };
    let dialects = dialects(args.proxy);
    let speaks =
        |listener: &&Listener| dialects.contains(&listener.http.as_ref().map(|http| http.dialect));
    let named = |listener: &&Listener| {
        let address = args.listener.as_deref();
        address.is_none_or(|address| listener.endpoint.to_string() == address)
    };
    if let Some(found) = all.iter().filter(named).find(speaks) {
        return Ok(found.clone());
    }
    let words: Vec<&str> = dialects
        .iter()
        .map(|dialect| dialect.map_or("grpc", Dialect::as_str))
        .collect();
    let which = match &args.listener {
        Some(address) => format!("no listener at `{address}`"),
        None => "no listener".to_owned(),
    };
    bail!(
        "{which} speaks `{}`; add one to `listeners` of the configuration, with `dialect: {}`",
        words.join("` or `"),
        words.first().copied().unwrap_or("grpc")
    );
}

/// What a proxy can ask in, the best first; `None` is gRPC.
fn dialects(proxy: ProxyArg) -> &'static [Option<Dialect>] {
    match proxy {
        ProxyArg::Envoy => &[None, Some(Dialect::Envoy)],
        ProxyArg::Istio | ProxyArg::Contour | ProxyArg::EnvoyGateway => &[None],
        ProxyArg::Nginx => &[Some(Dialect::Nginx)],
        ProxyArg::IngressNginx => &[Some(Dialect::IngressNginx)],
        ProxyArg::Haproxy => &[Some(Dialect::Haproxy)],
        ProxyArg::Apache => &[Some(Dialect::Apache)],
        ProxyArg::Traefik => &[Some(Dialect::Traefik)],
        ProxyArg::Caddy => &[Some(Dialect::Caddy)],
    }
}

fn print(files: &[(&'static str, String)]) -> anyhow::Result<()> {
    let mut stdout = out::stdout();
    for (index, (name, text)) in files.iter().enumerate() {
        if files.len() > 1 {
            let comment = if name.ends_with(".lua") { "--" } else { "#" };
            let gap = if index > 0 { "\n" } else { "" };
            write!(stdout, "{gap}{comment} ==== {name} ====\n{text}")?;
        } else {
            write!(stdout, "{text}")?;
        }
    }
    stdout.flush()?;
    Ok(())
}

fn write(folder: &Path, files: &[(&'static str, String)]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
    for (name, text) in files {
        let file = folder.join(name);
        std::fs::write(&file, text)
            .with_context(|| format!("cannot write `{}`", file.display()))?;
    }
    Ok(())
}
