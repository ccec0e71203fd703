//! The command line of `svid`. What clap parses and nothing else.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Verbs of `svid`.
#[derive(Debug, Subcommand)]
pub enum SvidCommand {
    /// Fetch this workload's SVID, X.509 or (with an audience) JWT, once
    #[command(
        after_help = "Example:\n  portcullis svid fetch --write certs\n  portcullis svid fetch --audience https://vault.example.org"
    )]
    Fetch(FetchArgs),
    /// Keep files up to date as the SVID and its bundle change, and run a command after each change
    #[command(
        after_help = "Example:\n  portcullis svid watch --write /etc/nginx/certs --reload 'nginx -s reload'"
    )]
    Watch(WatchArgs),
    /// Verify a JWT-SVID or an X.509-SVID: exit code 0 for a valid one, 2 for any other
    #[command(
        after_help = "Example:\n  portcullis svid validate --audience vault \"$TOKEN\"\n  portcullis svid validate --bundle example.org.json certs/svid.pem"
    )]
    Validate(ValidateArgs),
    /// Say in words what a certificate, a bundle or a token is, and which clause of the SPIFFE standards it breaks
    #[command(
        after_help = "Example:\n  portcullis svid inspect certs/svid.pem\n  portcullis ca bundle show | portcullis svid inspect -"
    )]
    Inspect(InspectArgs),
}

/// `--socket`.
#[derive(Clone, Debug, Default, Args)]
pub struct SocketArg {
    /// Workload API: a path, `unix:///PATH` or `tcp://IP:PORT`; without it the socket of the default data folder
    #[arg(long, env = "SPIFFE_ENDPOINT_SOCKET", value_name = "ADDR")]
    pub socket: Option<String>,
}

/// Which SVID of several.
#[derive(Clone, Debug, Default, Args)]
pub struct WhichArgs {
    /// The identity, when the workload has several; without it the first
    #[arg(long, value_name = "ID")]
    pub spiffe_id: Option<String>,
    /// The hint of the identity, when the workload has several
    #[arg(long, value_name = "TEXT", conflicts_with = "spiffe_id")]
    pub hint: Option<String>,
    /// Audience of a JWT-SVID, which is fetched instead of an X.509-SVID
    #[arg(long, value_name = "AUD")]
    pub audience: Vec<String>,
}

/// Modes of files.
#[derive(Clone, Debug, Args)]
pub struct ModeArgs {
    /// Mode of files that hold a private key or a token, octal
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = mode)]
    pub key_mode: u32,
    /// Mode of the other files, octal
    #[arg(long, value_name = "MODE", default_value = "0644", value_parser = mode)]
    pub cert_mode: u32,
}

fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("write a mode such as `0640`".to_owned()),
    }
}

/// `svid fetch`.
#[derive(Clone, Debug, Args)]
pub struct FetchArgs {
    /// Where.
    #[command(flatten)]
    pub socket: SocketArg,
    /// Which.
    #[command(flatten)]
    pub which: WhichArgs,
    /// Write svid.pem, svid.key and bundle.pem (or jwt_svid.token and jwt_bundle.json) into this folder
    #[arg(long, value_name = "DIR")]
    pub write: Option<PathBuf>,
    /// Modes of the files.
    #[command(flatten)]
    pub modes: ModeArgs,
    /// How long to wait for an identity, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub wait: u64,
}

/// `svid watch`.
#[derive(Clone, Debug, Args)]
pub struct WatchArgs {
    /// Where.
    #[command(flatten)]
    pub socket: SocketArg,
    /// Which identity, when the workload has several; without it the first
    #[arg(long, value_name = "ID")]
    pub spiffe_id: Option<String>,
    /// The hint of the identity, when the workload has several
    #[arg(long, value_name = "TEXT", conflicts_with = "spiffe_id")]
    pub hint: Option<String>,
    /// Keep jwt_svid.token and jwt_bundle.json up to date too, for this audience
    #[arg(long, value_name = "AUD")]
    pub audience: Vec<String>,
    /// Folder of svid.pem, svid.key and bundle.pem
    #[arg(long, value_name = "DIR")]
    pub write: PathBuf,
    /// Modes of the files.
    #[command(flatten)]
    pub modes: ModeArgs,
    /// Command for `sh -c` after each change of the files
    #[arg(long, value_name = "COMMAND")]
    pub reload: Option<String>,
    /// Longest time that the command gets, seconds; then it is ended
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub reload_timeout: u64,
}

/// `svid validate`.
#[derive(Clone, Debug, Args)]
pub struct ValidateArgs {
    /// Where.
    #[command(flatten)]
    pub socket: SocketArg,
    /// Audience that a JWT-SVID must be for
    #[arg(long, value_name = "AUD")]
    pub audience: Option<String>,
    /// Bundle to verify with, a SPIFFE document or PEM; without it the Workload API is asked
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
    /// A token, a file with one, a file with certificates (PEM, leaf first), or `-` for standard input
    #[arg(value_name = "SVID")]
    pub svid: String,
}

/// `svid inspect`.
#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    /// File, `-` for standard input: certificates in PEM or DER, a bundle document, a token
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}
