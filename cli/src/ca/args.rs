//! The command line of `ca`. What clap parses and nothing else.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::args::ConfigArg;

/// Verbs of `ca`.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Serve identities to workloads until told to stop
    #[command(
        after_help = "Example:\n  portcullis ca serve\n  portcullis ca serve --trust-domain example.org --data /var/lib/portcullis/ca --socket /run/portcullis/workload.sock"
    )]
    Serve(ServeArgs),
    /// Make the data folder and the first authorities, without serving
    #[command(after_help = "Example:\n  portcullis ca init --trust-domain example.org --data ca")]
    Init(InitArgs),
    /// Show authorities and their lives, entries, streams, the next rotation
    #[command(after_help = "Example:\n  portcullis ca status --data ca")]
    Status(DataArg),
    /// Say which callers have which SPIFFE ID
    #[command(
        subcommand,
        after_help = "Example:\n  portcullis ca entry list --data ca"
    )]
    Entry(EntryCommand),
    /// Prepare, activate, taint and revoke signing authorities
    #[command(
        subcommand,
        after_help = "Example:\n  portcullis ca authority list --data ca"
    )]
    Authority(AuthorityCommand),
    /// Show our bundle, set those of other trust domains
    #[command(
        subcommand,
        after_help = "Example:\n  portcullis ca bundle show --data ca > example.org.json"
    )]
    Bundle(BundleCommand),
    /// Fetch the bundles of other trust domains from where they publish them
    #[command(
        subcommand,
        after_help = "Example:\n  portcullis ca federation list --data ca"
    )]
    Federation(FederationCommand),
    /// Revoke single X.509-SVIDs before their end, show what is revoked
    #[command(
        subcommand,
        after_help = "Example:\n  portcullis ca crl list --data ca"
    )]
    Crl(CrlCommand),
    /// Verify and read the audit journal
    #[command(
        subcommand,
        after_help = "Example:\n  portcullis ca audit verify --data ca"
    )]
    Audit(AuditCommand),
}

/// `--data`.
#[derive(Clone, Debug, Default, Args)]
pub struct DataArg {
    /// Folder of database, keys, journal and admin socket; without it /var/lib/portcullis/ca for root, ~/.local/state/portcullis/ca for others
    #[arg(long, env = "PORTCULLIS_CA_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// `ca serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// What to make it from.
    #[command(flatten)]
    pub init: InitArgs,
    /// Socket for workloads; without it DIR/workload.sock
    #[arg(long, env = "PORTCULLIS_CA_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// `ca init`.
#[derive(Clone, Debug, Args)]
pub struct InitArgs {
    /// Trust domain, with or without `spiffe://`; without it that of the data folder, else example.org
    #[arg(long, env = "PORTCULLIS_CA_TRUST_DOMAIN", value_name = "TD")]
    pub trust_domain: Option<String>,
    /// Where everything is kept.
    #[command(flatten)]
    pub data: DataArg,
    /// Which configuration to read.
    #[command(flatten)]
    pub config: ConfigArg,
}

/// Verbs of `ca entry`.
#[derive(Debug, Subcommand)]
pub enum EntryCommand {
    /// Create an entry, or apply a file of them: what is there already is left or updated
    #[command(
        after_help = "Example:\n  portcullis ca entry create --spiffe-id spiffe://example.org/web --selector unix:uid:1000\n  portcullis ca entry create -f entries.yaml"
    )]
    Create(CreateArgs),
    /// Change an entry: what no flag names stays as it is
    #[command(
        after_help = "Example:\n  portcullis ca entry update 1b5e0d0c-6f5c-4f4e-9b53-0f7c4a1d9e11 --x509-ttl 30m"
    )]
    Update(UpdateArgs),
    /// Show entries
    #[command(
        after_help = "Example:\n  portcullis ca entry show 1b5e0d0c-6f5c-4f4e-9b53-0f7c4a1d9e11"
    )]
    Show(ShowArgs),
    /// List entries
    #[command(
        after_help = "Example:\n  portcullis ca entry list --spiffe-id spiffe://example.org/web --output json"
    )]
    List(ListArgs),
    /// Delete entries
    #[command(
        after_help = "Example:\n  portcullis ca entry delete 1b5e0d0c-6f5c-4f4e-9b53-0f7c4a1d9e11"
    )]
    Delete(ShowArgs),
}

/// `ca entry create`.
#[derive(Clone, Debug, Args)]
pub struct CreateArgs {
    /// Where the server keeps its data.
    #[command(flatten)]
    pub data: DataArg,
    /// Entries in YAML or JSON, `-` for standard input; or ClusterSPIFFEIDs with the Pods, Namespaces, Nodes and
    /// EndpointSlices that they are rendered for. `--parent-id` may be a template then
    #[arg(
        short = 'f',
        long = "file",
        value_name = "FILE",
        conflicts_with_all = ["spiffe_id", "selector"]
    )]
    pub file: Vec<PathBuf>,
    /// What templates find as `.ClusterName`
    #[arg(long, value_name = "NAME", requires = "file")]
    pub cluster_name: Option<String>,
    /// What templates find as `.ClusterDomain`
    #[arg(
        long,
        value_name = "DOMAIN",
        default_value = "cluster.local",
        requires = "file"
    )]
    pub cluster_domain: String,
    /// Identifier of the entry; without it a random one
    #[arg(long, value_name = "ID", conflicts_with = "file")]
    pub entry_id: Option<String>,
    /// The identity
    #[arg(long, value_name = "ID", required_unless_present = "file")]
    pub spiffe_id: Option<String>,
    /// What callers must have, all of them: `type:value`
    #[arg(long, value_name = "SELECTOR", required_unless_present = "file")]
    pub selector: Vec<String>,
    /// Everything else.
    #[command(flatten)]
    pub fields: FieldArgs,
}

/// What an entry says beside its identity and its callers.
#[derive(Clone, Debug, Default, Args)]
pub struct FieldArgs {
    /// Who hands it out; without it the local agent
    #[arg(long, value_name = "ID")]
    pub parent_id: Option<String>,
    /// What the identity is for, told to the workload
    #[arg(long, value_name = "TEXT")]
    pub hint: Option<String>,
    /// Trust domain whose bundle goes with the identity
    #[arg(long, value_name = "TD")]
    pub federates_with: Vec<String>,
    /// DNS name for its X.509-SVIDs
    #[arg(long, value_name = "NAME")]
    pub dns: Vec<String>,
    /// Lifetime of its X.509-SVIDs: `3600`, `90s`, `30m`, `2h`; 0 is the trust domain's
    #[arg(long, value_name = "TTL", allow_hyphen_values = true)]
    pub x509_ttl: Option<String>,
    /// Lifetime of its JWT-SVIDs; 0 is the trust domain's
    #[arg(long, value_name = "TTL", allow_hyphen_values = true)]
    pub jwt_ttl: Option<String>,
    /// When it stops being valid, Unix seconds; 0 is never
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub expires_at: Option<i64>,
    /// May use the admin API
    #[arg(long)]
    pub admin: bool,
    /// May have an intermediate signing certificate
    #[arg(long)]
    pub downstream: bool,
}

/// `ca entry update`.
#[derive(Clone, Debug, Args)]
pub struct UpdateArgs {
    /// Where the server keeps its data.
    #[command(flatten)]
    pub data: DataArg,
    /// Identifier of the entry
    #[arg(value_name = "ID")]
    pub id: String,
    /// The identity
    #[arg(long, value_name = "ID")]
    pub spiffe_id: Option<String>,
    /// What callers must have; replaces all selectors
    #[arg(long, value_name = "SELECTOR")]
    pub selector: Vec<String>,
    /// Everything else.
    #[command(flatten)]
    pub fields: FieldArgs,
}

/// `ca entry show`, `ca entry delete`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// Where the server keeps its data.
    #[command(flatten)]
    pub data: DataArg,
    /// Identifiers of entries
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

/// `ca entry list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Where the server keeps its data.
    #[command(flatten)]
    pub data: DataArg,
    /// Only entries of this identity
    #[arg(long, value_name = "ID")]
    pub spiffe_id: Option<String>,
    /// Only entries with this parent
    #[arg(long, value_name = "ID")]
    pub parent_id: Option<String>,
    /// Only entries that have these selectors, and possibly others
    #[arg(long, value_name = "SELECTOR")]
    pub selector: Vec<String>,
    /// Only entries with this hint
    #[arg(long, value_name = "TEXT")]
    pub hint: Option<String>,
}

/// `x509`, `jwt` or `wit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Signs X.509-SVIDs.
    X509,
    /// Signs JWT-SVIDs.
    Jwt,
    /// Signs WIT-SVIDs, where they are switched on.
    Wit,
}

/// Verbs of `ca authority`.
#[derive(Debug, Subcommand)]
pub enum AuthorityCommand {
    /// List authorities and their states
    #[command(after_help = "Example:\n  portcullis ca authority list")]
    List(DataArg),
    /// Make an authority and publish it; it signs nothing yet
    #[command(after_help = "Example:\n  portcullis ca authority prepare x509")]
    Prepare {
        /// What it is to sign
        #[arg(value_enum, value_name = "KIND")]
        kind: Kind,
        /// Where the server keeps its data.
        #[command(flatten)]
        data: DataArg,
    },
    /// Let a prepared authority sign in place of the active one
    #[command(
        after_help = "Example:\n  portcullis ca authority activate 4f1c5c0f2f0e6b7a8d9c0b1a2f3e4d5c6b7a8f90"
    )]
    Activate(AuthorityArgs),
    /// Replace everything that an authority signed, at once
    #[command(
        after_help = "Example:\n  portcullis ca authority taint 4f1c5c0f2f0e6b7a8d9c0b1a2f3e4d5c6b7a8f90"
    )]
    Taint {
        /// Which.
        #[command(flatten)]
        authority: AuthorityArgs,
        /// Taint the active authority: another one is prepared and activated first, without waiting for anybody
        #[arg(long)]
        emergency: bool,
    },
    /// Take a tainted authority out of the bundle: what it signed is invalid
    #[command(
        after_help = "Example:\n  portcullis ca authority revoke 4f1c5c0f2f0e6b7a8d9c0b1a2f3e4d5c6b7a8f90"
    )]
    Revoke(AuthorityArgs),
}

/// One authority.
#[derive(Clone, Debug, Args)]
pub struct AuthorityArgs {
    /// Identifier of the authority
    #[arg(value_name = "ID")]
    pub id: String,
    /// Where the server keeps its data.
    #[command(flatten)]
    pub data: DataArg,
}

/// Verbs of `ca bundle`.
#[derive(Debug, Subcommand)]
pub enum BundleCommand {
    /// Print our bundle, or that of another trust domain
    #[command(
        after_help = "Example:\n  portcullis ca bundle show\n  portcullis ca bundle show --trust-domain other.org --format pem"
    )]
    Show {
        /// Where the server keeps its data.
        #[command(flatten)]
        data: DataArg,
        /// Whose; without it ours
        #[arg(long, value_name = "TD")]
        trust_domain: Option<String>,
        /// Form of the bundle
        #[arg(long, value_enum, default_value_t = BundleFormat::Spiffe, value_name = "FORM")]
        format: BundleFormat,
    },
    /// Set the bundle of another trust domain, from PEM or a SPIFFE document
    #[command(
        after_help = "Example:\n  portcullis ca bundle set --trust-domain other.org other.json"
    )]
    Set {
        /// Where the server keeps its data.
        #[command(flatten)]
        data: DataArg,
        /// Whose, with or without `spiffe://`
        #[arg(long, value_name = "TD")]
        trust_domain: String,
        /// File, `-` for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// List the bundles of other trust domains
    #[command(after_help = "Example:\n  portcullis ca bundle list")]
    List(DataArg),
    /// Delete the bundle of another trust domain
    #[command(
        after_help = "Example:\n  portcullis ca bundle delete --trust-domain other.org --mode dissociate"
    )]
    Delete {
        /// Where the server keeps its data.
        #[command(flatten)]
        data: DataArg,
        /// Whose
        #[arg(long, value_name = "TD")]
        trust_domain: String,
        /// What becomes of entries that federate with it
        #[arg(long, value_enum, default_value_t = DeleteMode::Restrict, value_name = "MODE")]
        mode: DeleteMode,
    },
}

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BundleFormat {
    /// A SPIFFE bundle document.
    Spiffe,
    /// The X.509 authorities as PEM.
    Pem,
}

/// `--mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeleteMode {
    /// Refuse while there are any.
    Restrict,
    /// Delete them, too.
    Delete,
    /// They no longer federate with it.
    Dissociate,
}

/// Verbs of `ca federation`.
#[derive(Debug, Subcommand)]
pub enum FederationCommand {
    /// Fetch the bundle of another trust domain from now on
    #[command(
        after_help = "Example:\n  portcullis ca federation create --trust-domain other.org --url https://spire.other.org:8443 \\\n    --profile https_spiffe --endpoint-id spiffe://other.org/spire/server --bundle other.org.json"
    )]
    Create(RelationshipArgs),
    /// Fetch it from elsewhere, or authenticate the endpoint in another way
    #[command(
        after_help = "Example:\n  portcullis ca federation update --trust-domain other.org --url https://bundle.other.org --profile https_web"
    )]
    Update(RelationshipArgs),
    /// List the trust domains, how the last attempts went and when the next is
    #[command(after_help = "Example:\n  portcullis ca federation list")]
    List(DataArg),
    /// Show one of them
    #[command(after_help = "Example:\n  portcullis ca federation show other.org")]
    Show {
        /// Where the server keeps its data.
        #[command(flatten)]
        data: DataArg,
        /// Whose bundle, with or without `spiffe://`
        #[arg(value_name = "TD")]
        trust_domain: String,
    },
    /// Fetch a bundle no longer; the one that is known stays until `ca bundle delete`
    #[command(after_help = "Example:\n  portcullis ca federation delete other.org")]
    Delete {
        /// Where the server keeps its data.
        #[command(flatten)]
        data: DataArg,
        /// Whose bundle, with or without `spiffe://`
        #[arg(value_name = "TD")]
        trust_domain: String,
    },
    /// Fetch a bundle now
    #[command(after_help = "Example:\n  portcullis ca federation refresh other.org")]
    Refresh {
        /// Where the server keeps its data.
        #[command(flatten)]
        data: DataArg,
        /// Whose bundle, with or without `spiffe://`
        #[arg(value_name = "TD")]
        trust_domain: String,
    },
}

/// `ca federation create`, `ca federation update`.
#[derive(Clone, Debug, Args)]
pub struct RelationshipArgs {
    /// Where the server keeps its data.
    #[command(flatten)]
    pub data: DataArg,
    /// Whose bundle, with or without `spiffe://`
    #[arg(long, value_name = "TD")]
    pub trust_domain: String,
    /// Where it is published
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// How that place is authenticated
    #[arg(long, value_enum, value_name = "PROFILE")]
    pub profile: RelationshipProfile,
    /// SPIFFE ID of the endpoint, for https_spiffe
    #[arg(long, value_name = "ID")]
    pub endpoint_id: Option<String>,
    /// Bundle to begin with, a SPIFFE document or PEM, `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
}

/// `--profile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RelationshipProfile {
    /// By the certificate of its host, as on the web.
    #[value(name = "https_web")]
    HttpsWeb,
    /// By its X.509-SVID.
    #[value(name = "https_spiffe")]
    HttpsSpiffe,
}

/// Verbs of `ca crl`.
#[derive(Debug, Subcommand)]
pub enum CrlCommand {
    /// Revoke X.509-SVIDs: everybody on a stream gets the new list at once
    #[command(
        after_help = "Example:\n  portcullis ca crl revoke 4d1c77a05ba1c1a6cf1b4ff1a32b4b1d --reason key-compromise\n  portcullis ca crl revoke $(openssl x509 -in svid.pem -noout -serial)"
    )]
    Revoke {
        /// Where the server keeps its data.
        #[command(flatten)]
        data: DataArg,
        /// Why: unspecified, key-compromise, superseded, cessation-of-operation or privilege-withdrawn
        #[arg(long, default_value = "unspecified", value_name = "REASON")]
        reason: String,
        /// Serial numbers, in hexadecimal digits
        #[arg(value_name = "SERIAL", required = true)]
        serials: Vec<String>,
    },
    /// List what is revoked and not yet over
    #[command(after_help = "Example:\n  portcullis ca crl list")]
    List(DataArg),
    /// Print the newest revocation list of each authority, PEM
    #[command(after_help = "Example:\n  portcullis ca crl show > crl.pem")]
    Show(DataArg),
}

/// Verbs of `ca audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check the chain of the whole journal
    #[command(after_help = "Example:\n  portcullis ca audit verify")]
    Verify(DataArg),
    /// Print every record whose place in the chain is right, one JSON object per line
    #[command(after_help = "Example:\n  portcullis ca audit export > audit.jsonl")]
    Export(DataArg),
    /// Print the last records
    #[command(after_help = "Example:\n  portcullis ca audit tail --lines 20 --follow")]
    Tail {
        /// Where the server keeps its data.
        #[command(flatten)]
        data: DataArg,
        /// How many
        #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
        lines: usize,
        /// Go on as records are written
        #[arg(short = 'f', long)]
        follow: bool,
    },
}
