//! What to try next: commands and snippets with the addresses that are really served.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use crate::out::{self, BOLD, DIM};

/// The Envoy snippet, also in docs/tasks/envoy.md.
const SNIPPET: &str = include_str!("snippet.yaml");

/// A stranger who asks the gateway of the bookshop for an admin page.
const EXAMPLE_REQUEST: &str = r#"{"attributes":{"source":{"address":{"socketAddress":{"address":"203.0.113.7","portValue":40000}}},"destination":{"address":{"socketAddress":{"address":"10.1.0.5","portValue":8080}}},"request":{"http":{"method":"GET","path":"/admin","host":"shop.example","scheme":"http"}}}}"#;

/// Prints how to ask the service at `address`, how to explain a denial, and how to put it behind
/// an Envoy. `requests` is the file of example requests below `folder`, where there is one; `authority` the data folder
/// of the certificate authority.
///
/// # Errors
/// When the output cannot be written.
pub fn print(
    address: SocketAddr,
    folder: Option<(&Path, &Path)>,
    authority: Option<&Path>,
) -> std::io::Result<()> {
    let mut out = out::stdout();
    writeln!(
        out,
        "\n{BOLD}ask it yourself{BOLD:#} {DIM}(it speaks reflection: no .proto needed){DIM:#}"
    )?;
    writeln!(
        out,
        "  grpcurl -plaintext -d '{}' \\\n    {address} envoy.service.auth.v3.Authorization/Check",
        EXAMPLE_REQUEST
    )?;
    if let Some((folder, requests)) = folder {
        writeln!(out, "\n{BOLD}why was it denied?{BOLD:#}")?;
        writeln!(
            out,
            "  sed -n 2p {} | portcullis policy explain --policies {}",
            shell(requests),
            shell(folder)
        )?;
    }
    if let Some(data) = authority {
        writeln!(out, "\n{BOLD}who has which identity?{BOLD:#}")?;
        writeln!(out, "  portcullis ca entry list --data {}", shell(data))?;
        writeln!(out, "  portcullis ca status --data {}", shell(data))?;
    }
    writeln!(
        out,
        "\n{BOLD}put it behind your Envoy{BOLD:#} {DIM}(an HTTP filter before the router, and a cluster){DIM:#}"
    )?;
    for line in snippet(address).lines() {
        writeln!(out, "  {line}")?;
    }
    out.flush()
}

/// Prints what to ask the Envoy at `address`, whose configuration is in `file`.
///
/// # Errors
/// When the output cannot be written.
pub fn print_envoy(address: SocketAddr, file: &Path) -> std::io::Result<()> {
    let mut out = out::stdout();
    writeln!(
        out,
        "\n{BOLD}Envoy listens on {address}{BOLD:#} {DIM}(configuration: {}){DIM:#}",
        file.display()
    )?;
    for (arguments, outcome) in [
        ("/books/moby-dick", "200: the gateway lets readers in"),
        ("/admin", "403: nobody but operators reaches an admin page"),
        ("-X DELETE /books/moby-dick", "403: no rule lets it in"),
    ] {
        let (options, path) = arguments.rsplit_once(' ').unwrap_or(("", arguments));
        let space = if options.is_empty() { "" } else { " " };
        writeln!(
            out,
            "  curl -i {options}{space}http://{address}{path}  {DIM}# {outcome}{DIM:#}"
        )?;
    }
    out.flush()
}

/// The snippet with the service's address filled in.
fn snippet(address: SocketAddr) -> String {
    SNIPPET
        .replace("AUTHZ_HOST", &address.ip().to_string())
        .replace("AUTHZ_PORT", &address.port().to_string())
}

/// A path from here, where it is below.
pub fn short(path: &Path) -> &Path {
    let here = std::env::current_dir().and_then(|here| here.canonicalize());
    let below = here.ok().and_then(|here| path.strip_prefix(here).ok());
    below.unwrap_or(path)
}

/// A path as a shell takes it.
fn shell(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text
        .chars()
        .all(|character| character.is_ascii_alphanumeric() || "/._-+:@%".contains(character));
    if plain && !text.is_empty() {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
