//! One real proxy, run with the snippet that we ship for it: only addresses and files are exchanged.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use portcullis_tests::component::{self, Unpacked, require, run_folder, workspace};
use portcullis_tests::ports::free_address;
use portcullis_tests::process::{Daemon, run};
use serde_json::{Value, json};

use crate::stage::PORTCULLIS;

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    IngressNginx,
    Haproxy,
    Apache,
    Traefik,
    Caddy,
    /// Over HTTP.
    Envoy,
    EnvoyGrpc,
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Nginx,
        Self::IngressNginx,
        Self::Haproxy,
        Self::Apache,
        Self::Traefik,
        Self::Caddy,
        Self::Envoy,
        Self::EnvoyGrpc,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::IngressNginx => "ingress-nginx",
            Self::Haproxy => "haproxy",
            Self::Apache => "apache",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
            Self::Envoy => "envoy",
            Self::EnvoyGrpc => "envoy-grpc",
        }
    }

    /// Whether it is an Envoy, which normalises paths before it asks.
    pub fn is_envoy(self) -> bool {
        matches!(self, Self::Envoy | Self::EnvoyGrpc)
    }

    /// What `authz config` calls it.
    fn word(self) -> &'static str {
        match self {
            Self::EnvoyGrpc => "envoy",
            other => other.name(),
        }
    }

    /// Portcullis's side: the listener that the snippet asks.
    pub fn listener(self, address: SocketAddr) -> Value {
        let certificate = |header| json!({ "source": "certificate", "header": header });
        let dialect = match self {
            // All that it has to say is in the check itself.
            Self::EnvoyGrpc => return json!({ "address": address.to_string() }),
            Self::Envoy => "envoy-http",
            other => other.name(),
        };
        let identity = match self {
            Self::IngressNginx => certificate("ssl-client-cert"),
            Self::Traefik => certificate("x-forwarded-tls-client-cert"),
            Self::Envoy => json!({ "source": "xfcc" }),
            _ => certificate("x-client-cert"),
        };
        let mut listener = json!({
            "address": address.to_string(),
            "dialect": dialect,
            "workload": "shop/web",
            "port": 8080,
            "identity": identity,
            "trusted_peers": ["127.0.0.1"],
        });
        if self == Self::Envoy {
            listener["path_prefix"] = json!("/authz");
            listener["stated"] = json!(["direct_address", "remote_address"]);
        }
        listener
    }

    /// The snippet's files, relative to `deploy/proxies`.
    pub fn files(self) -> &'static [&'static str] {
        match self {
            Self::Nginx => &["nginx/nginx.conf", "nginx/portcullis-headers.conf"],
            Self::IngressNginx => &["ingress-nginx/ingress.yaml"],
            Self::Haproxy => &["haproxy/haproxy.cfg", "haproxy/portcullis.lua"],
            Self::Apache => &["apache/httpd.conf", "apache/portcullis.lua"],
            Self::Traefik => &["traefik/traefik.yml", "traefik/portcullis.yml"],
            Self::Caddy => &["caddy/Caddyfile"],
            Self::Envoy => &["envoy/http-service.yaml"],
            Self::EnvoyGrpc => &["envoy/http.yaml"],
        }
    }
}

pub fn snippet(file: &str) -> String {
    fs::read_to_string(workspace().join("deploy/proxies").join(file)).unwrap()
}

/// What a proxy stands between, and the certificates that it has.
pub struct Surroundings<'a> {
    pub portcullis: SocketAddr,
    pub workload: SocketAddr,
    /// Folder with `tls.crt`, `tls.key`, `tls.pem` and `clients.crt`.
    pub certificates: &'a Path,
    /// Portcullis's configuration.
    pub config: &'a Path,
}

pub struct Proxy {
    pub kind: Kind,
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    _daemon: Daemon,
    _folder: Option<tempfile::TempDir>,
}

impl Proxy {
    /// `None` where the proxy cannot be had.
    pub fn start(test: &str, kind: Kind, around: &Surroundings<'_>) -> Option<Self> {
        let folder = run_folder(&format!("{test}-{}", kind.name()));
        let (plain, tls) = (free_address().unwrap(), free_address().unwrap());
        let exchange = |text: String| exchange(text, around, plain, tls);
        let mut kept = None;
        let mut command = match kind {
            Kind::Nginx | Kind::IngressNginx => {
                let nginx = require(component::nginx())?;
                let place = |text: String| for_a_test(exchange(text));
                match kind {
                    Kind::Nginx => write(&folder, kind, around, place),
                    _ => fs::write(
                        folder.join("nginx.conf"),
                        place(ingress_nginx(around.portcullis)),
                    )
                    .unwrap(),
                }
                let mut command = nginx.command();
                command
                    .arg("-p")
                    .arg(&folder)
                    .args(["-c", "nginx.conf", "-e", "stderr"]);
                command
            }
            Kind::Haproxy => {
                let haproxy = require(component::haproxy())?;
                let place = |text: String| {
                    exchange(text).replace("/etc/haproxy", &folder.display().to_string())
                };
                write(&folder, kind, around, place);
                let mut command = haproxy.command();
                command.arg("-db").arg("-f").arg(folder.join("haproxy.cfg"));
                command
            }
            Kind::Apache => {
                let apache = require(component::apache())?;
                // Its workers give up their rights: they must reach the hook all the same.
                let open = tempfile::tempdir().unwrap();
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                fs::set_permissions(open.path(), mode).unwrap();
                let command = start_apache(&apache, open.path(), around, exchange);
                kept = Some(open);
                command
            }
            Kind::Traefik => {
                let traefik = require(component::traefik())?;
                let place = |text: String| {
                    exchange(text).replace("/etc/traefik", &folder.display().to_string())
                };
                write(&folder, kind, around, place);
                let mut command = Command::new(traefik);
                command.arg(format!(
                    "--configFile={}",
                    folder.join("traefik.yml").display()
                ));
                command
            }
            Kind::Caddy => {
                let caddy = require(component::caddy())?;
                write(&folder, kind, around, exchange);
                let mut command = Command::new(caddy);
                command
                    .args(["run", "--adapter", "caddyfile", "--config"])
                    .arg(folder.join("Caddyfile"))
                    .env("XDG_DATA_HOME", &folder)
                    .env("XDG_CONFIG_HOME", &folder);
                command
            }
            Kind::Envoy | Kind::EnvoyGrpc => {
                let envoy = require(component::envoy())?;
                write(&folder, kind, around, |text| match kind {
                    Kind::EnvoyGrpc => exchange(over_tls_too(&text)),
                    _ => exchange(text),
                });
                let file = kind.files()[0].rsplit('/').next().unwrap();
                let mut command = Command::new(envoy);
                command
                    .args(["--concurrency", "1", "--use-dynamic-base-id", "-c"])
                    .arg(folder.join(file));
                command
            }
        };
        let mut daemon = Daemon::start(&mut command, &folder.join("log")).unwrap();
        let ready = || {
            let client = portcullis_tests::client::Client::plain(plain);
            let exchange = portcullis_tests::client::Exchange::get("/ready");
            client
                .send(&exchange)
                .is_ok_and(|answer| answer.status == 200)
        };
        daemon
            .wait_until(PATIENCE, ready)
            .unwrap_or_else(|cause| panic!("{}: {cause}", kind.name()));
        Some(Self {
            kind,
            plain,
            tls,
            _daemon: daemon,
            _folder: kept,
        })
    }
}

/// Has `authz config` write the files for the listener, and exchanges in them what it cannot know.
fn write(folder: &Path, kind: Kind, around: &Surroundings<'_>, place: impl Fn(String) -> String) {
    let mut command = Command::new(PORTCULLIS);
    command
        .args(["authz", "config", kind.word(), "--config"])
        .arg(around.config)
        .args(["--listener", &around.portcullis.to_string(), "--into"])
        .arg(folder);
    let output = run(&mut command, PATIENCE).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", kind.name());
    // The listener is what the snippet needs: there is nothing to note.
    assert_eq!(said, "", "{}", kind.name());
    for file in kind.files() {
        let file = folder.join(Path::new(file).file_name().unwrap());
        let text = fs::read_to_string(&file).unwrap();
        fs::write(file, place(text)).unwrap();
    }
}

/// The snippet's addresses and files become those of the test, and its time limits those of a busy machine.
fn exchange(text: String, around: &Surroundings<'_>, plain: SocketAddr, tls: SocketAddr) -> String {
    let workload = around.workload.port();
    let certificates = around.certificates.display().to_string();
    let mut text = text
        .replace("127.0.0.1:8080", &around.workload.to_string())
        .replace("port_value: 8080 ", &format!("port_value: {workload} "))
        .replace("10000", &plain.port().to_string())
        .replace("10443", &tls.port().to_string())
        .replace("address: 0.0.0.0,", "address: 127.0.0.1,")
        .replace("/etc/portcullis/proxy", &certificates);
    for (short, long) in [
        ("proxy_connect_timeout 1s", "proxy_connect_timeout 20s"),
        ("proxy_read_timeout 1s", "proxy_read_timeout 20s"),
        ("timeout_ms = 1000", "timeout_ms = 20000"),
        ("timeout_s = 1", "timeout_s = 20"),
        ("response_header_timeout 1s", "response_header_timeout 20s"),
        ("dial_timeout 1s", "dial_timeout 20s"),
        ("timeout: 0.25s }", "timeout: 20s }"),
        ("timeout: 0.25s\n", "timeout: 20s\n"),
    ] {
        text = text.replace(short, long);
    }
    text
}

/// The one listener of Envoy's plaintext snippet, and the same over TLS beside it.
fn over_tls_too(text: &str) -> String {
    let (head, rest) = text.split_once("  - name: inbound\n").unwrap();
    let (listener, clusters) = rest.split_once("  clusters:\n").unwrap();
    let tls = "    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificates:
            - certificate_chain: { filename: /etc/portcullis/proxy/tls.crt }
              private_key: { filename: /etc/portcullis/proxy/tls.key }
            validation_context: { trusted_ca: { filename: /etc/portcullis/proxy/clients.crt } }
      filters:\n";
    assert_eq!(listener.matches("    - filters:\n").count(), 1);
    let secure = listener
        .replace("10000", "10443")
        .replace("    - filters:\n", tls);
    format!(
        "{head}  - name: inbound\n{listener}  - name: inbound-tls\n{secure}  clusters:\n{clusters}"
    )
}

/// nginx in the foreground, with its files in its own folder.
fn for_a_test(text: String) -> String {
    let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|of| format!("{of}_temp_path {of};"))
        .join(" ");
    text.replace("worker_processes auto;", "worker_processes 1; daemon off;")
        .replace("pid /run/nginx.pid;", "pid nginx.pid;")
        .replace("http {\n", &format!("http {{ {folders}\n"))
}

fn start_apache(
    apache: &Unpacked,
    folder: &Path,
    around: &Surroundings<'_>,
    exchange: impl Fn(String) -> String,
) -> Command {
    let here = folder.display().to_string();
    let modules = apache.path("usr/lib/apache2/modules").display().to_string();
    write(folder, Kind::Apache, around, |text| {
        exchange(text)
            .replace("/usr/lib/apache2/modules", &modules)
            .replace("/etc/apache2", &here)
            .replace("/run/apache2", &here)
    });
    let lua = |kind: &str| {
        let path = match kind {
            "so" => apache.libraries().join("lua/5.3/?.so"),
            _ => apache.path("usr/share/lua/5.3/?.lua"),
        };
        format!("{};;", path.display())
    };
    let mut command = apache.command();
    command
        .arg("-DFOREGROUND")
        .arg("-d")
        .arg(folder)
        .args(["-f", "httpd.conf"])
        .env("LUA_PATH", lua("lua"))
        .env("LUA_CPATH", lua("so"));
    command
}

/// What ingress-nginx 1.12 makes of our annotations: its template's location for `auth-url`, with our `auth-snippet`.
fn ingress_nginx(portcullis: SocketAddr) -> String {
    let ingress = snippet("ingress-nginx/ingress.yaml");
    let (_, after) = ingress.split_once("auth-snippet: |\n").unwrap();
    let ours: Vec<&str> = after
        .lines()
        .take_while(|line| line.starts_with("      "))
        .map(str::trim)
        .collect();
    assert!(ours.len() > 10);
    format!(
        r#"
worker_processes auto;
pid /run/nginx.pid;
events {{}}
http {{
  access_log off;
  proxy_headers_hash_max_size 512;
  proxy_headers_hash_bucket_size 64;
  server {{
    listen 10000;
    listen 10443 ssl;
    ssl_certificate /etc/portcullis/proxy/tls.crt;
    ssl_certificate_key /etc/portcullis/proxy/tls.key;
    ssl_client_certificate /etc/portcullis/proxy/clients.crt;
    ssl_verify_client optional;
    location = /_external-auth-Lw-Prefix {{
      internal;
      access_log off;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_set_header X-Forwarded-Proto "";
      proxy_set_header X-Request-ID $request_id;
      proxy_set_header Host portcullis.portcullis-system.svc.cluster.local;
      proxy_set_header X-Original-URL $scheme://$http_host$request_uri;
      proxy_set_header X-Original-Method $request_method;
      proxy_set_header X-Sent-From "nginx-ingress-controller";
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Auth-Request-Redirect $request_uri;
      proxy_set_header ssl-client-cert $ssl_client_escaped_cert;
      proxy_set_header ssl-client-verify $ssl_client_verify;
      proxy_set_header ssl-client-subject-dn $ssl_client_s_dn;
      proxy_set_header ssl-client-issuer-dn $ssl_client_i_dn;
      proxy_http_version 1.1;
      proxy_pass_request_headers on;
      {}
      proxy_pass http://{portcullis}/;
    }}
    location / {{
      auth_request /_external-auth-Lw-Prefix;
      auth_request_set $auth_cookie $upstream_http_set_cookie;
      proxy_set_header Host $http_host;
      proxy_set_header ssl-client-cert $ssl_client_escaped_cert;
      proxy_pass http://127.0.0.1:8080;
    }}
  }}
}}
"#,
        ours.join("\n      ")
    )
}

/// The files that proxies read: certificate and key apart and together, and whose clients they know.
pub fn certificates(folder: &Path, authority: &portcullis_tests::authority::Authority) -> PathBuf {
    let names = portcullis_tests::authority::Names {
        dns: vec!["example.com".to_owned()],
        ..Default::default()
    };
    let leaf = authority.leaf(&names).unwrap();
    let folder = folder.join("certificates");
    fs::create_dir_all(&folder).unwrap();
    for (name, text) in [
        ("tls.crt", leaf.certificate.clone()),
        ("tls.key", leaf.key.clone()),
        ("tls.pem", leaf.certificate.clone() + &leaf.key),
        ("clients.crt", authority.certificate().to_owned()),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
    folder
}
