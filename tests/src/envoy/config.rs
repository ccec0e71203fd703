//! Envoy's configuration, as much of it as these tests vary.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::authority::{Authority, Leaf};

/// Name of the access log within the test's folder: one JSON object a request.
pub const ACCESS_LOG: &str = "access.jsonl";

const TYPE: &str = "type.googleapis.com/envoy";

/// Where the ext_authz service is.
#[derive(Clone, Debug)]
pub enum Service {
    /// On TCP.
    Tcp(SocketAddr),
    /// On a unix socket.
    Unix(PathBuf),
}

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The ext_authz service.
    pub authorization: Service,
    /// What stands behind TCP listeners.
    pub upstream: Option<SocketAddr>,
    /// Folder that the access log is written to.
    pub folder: PathBuf,
    /// The listeners.
    pub listeners: Vec<Listener>,
}

/// One listener with one filter chain.
#[derive(Clone, Debug)]
pub struct Listener {
    name: String,
    address: SocketAddr,
    tls: Option<Value>,
    also_plain: bool,
    tcp: bool,
    filters: Vec<Value>,
    connection_manager: Vec<(String, Value)>,
    context_extensions: BTreeMap<String, String>,
}

impl Listener {
    /// An HTTP listener on a free port of loopback that answers 200 `ok` itself.
    #[must_use]
    pub fn http(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            tls: None,
            also_plain: false,
            tcp: false,
            filters: Vec::new(),
            connection_manager: Vec::new(),
            context_extensions: BTreeMap::new(),
        }
    }

    /// A TCP listener on a free port of loopback, in front of [`Config::upstream`].
    #[must_use]
    pub fn tcp(name: &str) -> Self {
        Self {
            tcp: true,
            ..Self::http(name)
        }
    }

    /// On this address instead.
    #[must_use]
    pub fn on(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// TLS as `leaf`; clients may show a certificate of `authority`.
    #[must_use]
    pub fn tls(mut self, authority: &Authority, leaf: &Leaf) -> Self {
        let text = |text: &str| json!({ "inline_string": text });
        self.tls = Some(json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": format!("{TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
                "require_client_certificate": false,
                "disable_stateless_session_resumption": true,
                "disable_stateful_session_resumption": true,
                "common_tls_context": {
                    "tls_certificates": [{
                        "certificate_chain": text(&leaf.certificate),
                        "private_key": text(&leaf.key),
                    }],
                    "validation_context": { "trusted_ca": text(authority.certificate()) },
                },
            },
        }));
        self
    }

    /// Plain text on the same port too, as Istio's PERMISSIVE mode has it.
    #[must_use]
    pub fn also_plain(mut self) -> Self {
        self.also_plain = true;
        self
    }

    /// With one more filter before the end of the chain.
    #[must_use]
    pub fn filter(mut self, filter: Value) -> Self {
        self.filters.push(filter);
        self
    }

    /// With this key of the HTTP connection manager set.
    #[must_use]
    pub fn manager(mut self, key: &str, value: Value) -> Self {
        self.connection_manager.push((key.to_owned(), value));
        self
    }

    /// With Istio's settings for a mode of `meshConfig.pathNormalization`.
    #[must_use]
    pub fn normalisation(self, mode: &str) -> Self {
        match mode {
            "NONE" => self,
            "MERGE_SLASHES" => self
                .manager("normalize_path", json!(true))
                .manager("merge_slashes", json!(true)),
            "DECODE_AND_MERGE_SLASHES" => self
                .manager("normalize_path", json!(true))
                .manager("merge_slashes", json!(true))
                .manager(
                    "path_with_escaped_slashes_action",
                    json!("UNESCAPE_AND_FORWARD"),
                ),
            _ => self.manager("normalize_path", json!(true)),
        }
    }

    /// With a context extension on its route (HTTP only: the network filter has none).
    #[must_use]
    pub fn extension(mut self, name: &str, value: &str) -> Self {
        self.context_extensions
            .insert(name.to_owned(), value.to_owned());
        self
    }

    fn value(&self, log: &Value) -> Value {
        let filters = if self.tcp {
            self.tcp_filters(log)
        } else {
            self.http_filters(log)
        };
        let plain = json!({ "filters": filters });
        let mut chains = Vec::new();
        let mut inspectors = Vec::new();
        if let Some(tls) = &self.tls {
            let mut secure = plain.clone();
            set(&mut secure, "transport_socket", tls.clone());
            if self.also_plain {
                let matched = json!({ "transport_protocol": "tls" });
                set(&mut secure, "filter_chain_match", matched);
            }
            chains.push(secure);
            // The requested server name, for the RBAC filter, comes from here.
            inspectors.push(filter(
                "envoy.filters.listener.tls_inspector",
                "filters.listener.tls_inspector.v3.TlsInspector",
                json!({}),
            ));
        }
        if self.tls.is_none() || self.also_plain {
            chains.push(plain);
        }
        json!({
            "name": self.name,
            "address": socket(self.address),
            // Another Envoy on the same fixed address must be an error, not a share of its traffic.
            "enable_reuse_port": false,
            "listener_filters": inspectors,
            "filter_chains": chains,
        })
    }

    fn tcp_filters(&self, log: &Value) -> Vec<Value> {
        let mut filters = self.filters.clone();
        let proxy = json!({ "stat_prefix": self.name, "cluster": "upstream", "access_log": [log] });
        filters.push(filter(
            "envoy.filters.network.tcp_proxy",
            "filters.network.tcp_proxy.v3.TcpProxy",
            proxy,
        ));
        filters
    }

    fn http_filters(&self, log: &Value) -> Vec<Value> {
        let mut filters = self.filters.clone();
        filters.push(filter(
            "envoy.filters.http.router",
            "filters.http.router.v3.Router",
            json!({}),
        ));
        let mut route = json!({
            "match": { "prefix": "/" },
            "direct_response": { "status": 200, "body": { "inline_string": "ok" } },
        });
        if let (false, Some(route)) = (self.context_extensions.is_empty(), route.as_object_mut()) {
            let settings = json!({
                "@type": format!("{TYPE}.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"),
                "check_settings": { "context_extensions": self.context_extensions },
            });
            route.insert(
                "typed_per_filter_config".into(),
                json!({ EXT_AUTHZ: settings }),
            );
        }
        let mut manager = json!({
            "stat_prefix": self.name,
            "access_log": [log],
            "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
            "http_filters": filters,
        });
        for (key, value) in &self.connection_manager {
            set(&mut manager, key, value.clone());
        }
        let name = "envoy.filters.network.http_connection_manager";
        vec![filter(
            name,
            "filters.network.http_connection_manager.v3.HttpConnectionManager",
            manager,
        )]
    }
}

/// The part of a bootstrap document that opens the admin interface, on a free port of loopback.
#[must_use]
pub fn admin() -> Value {
    json!({ "admin": { "address": socket(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)) } })
}

impl Config {
    /// The bootstrap document, without the admin interface.
    #[must_use]
    pub fn bootstrap(&self) -> Value {
        let log = access_log(&self.folder.join(ACCESS_LOG).to_string_lossy());
        let authorization = match &self.authorization {
            Service::Tcp(address) => socket(*address),
            Service::Unix(path) => json!({ "pipe": { "path": path } }),
        };
        let mut clusters = vec![cluster("authorization", &authorization, true)];
        clusters.extend(
            self.upstream
                .map(|upstream| cluster("upstream", &socket(upstream), false)),
        );
        json!({
            // Istio cuts fragments instead of refusing them.
            "layered_runtime": { "layers": [{ "name": "istio", "static_layer": {
                "envoy.reloadable_features.http_reject_path_with_fragment": false,
            } }] },
            "static_resources": {
                "listeners": self.listeners.iter().map(|listener| listener.value(&log)).collect::<Vec<_>>(),
                "clusters": clusters,
            },
        })
    }
}

const EXT_AUTHZ: &str = "envoy.filters.http.ext_authz";

/// Settings of an ext_authz filter.
#[derive(Clone, Debug)]
pub struct ExtAuthz {
    /// Headers as they came, repeats apart (`encode_raw_headers`).
    pub raw_headers: bool,
    /// The peer's whole certificate, so that all its names are known.
    pub certificate: bool,
    /// The address after X-Forwarded-For, as gRPC metadata.
    pub remote_address: bool,
    /// More gRPC metadata; the one place where the network filter can state facts.
    pub metadata: Vec<(String, String)>,
}

impl Default for ExtAuthz {
    /// As the documentation recommends: everything on.
    fn default() -> Self {
        Self {
            raw_headers: true,
            certificate: true,
            remote_address: true,
            metadata: Vec::new(),
        }
    }
}

impl ExtAuthz {
    fn grpc_service(&self) -> Value {
        let mut metadata = self.metadata.clone();
        if self.remote_address {
            let remote = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%";
            metadata.push(("x-portcullis-remote-address".into(), remote.into()));
        }
        let metadata: Vec<Value> = metadata
            .iter()
            .map(|(key, value)| json!({ "key": key, "value": value }))
            .collect();
        // A busy machine must not turn into denials here; the default of 200 ms is for production.
        json!({ "envoy_grpc": { "cluster_name": "authorization" }, "timeout": "10s", "initial_metadata": metadata })
    }

    /// The HTTP filter.
    #[must_use]
    pub fn http(&self) -> Value {
        let settings = json!({
            "transport_api_version": "V3",
            "grpc_service": self.grpc_service(),
            "include_peer_certificate": self.certificate,
            "include_tls_session": true,
            "encode_raw_headers": self.raw_headers,
            "metadata_context_namespaces": ["envoy.filters.http.jwt_authn"],
        });
        filter(EXT_AUTHZ, "filters.http.ext_authz.v3.ExtAuthz", settings)
    }

    /// The network filter.
    #[must_use]
    pub fn network(&self) -> Value {
        let settings = json!({
            "stat_prefix": "authorization",
            "transport_api_version": "V3",
            "grpc_service": self.grpc_service(),
            "include_peer_certificate": self.certificate,
            "include_tls_session": true,
        });
        filter(
            "envoy.filters.network.ext_authz",
            "filters.network.ext_authz.v3.ExtAuthz",
            settings,
        )
    }
}

/// A jwt_authn filter: any issuer, keys in `jwks`, no token needed, the payload where Istio puts it.
#[must_use]
pub fn jwt_authn(jwks: &Value) -> Value {
    let settings = json!({
        "providers": { "any": {
            "local_jwks": { "inline_string": jwks.to_string() },
            "payload_in_metadata": "payload",
            "forward": true,
        } },
        "rules": [{ "match": { "prefix": "/" }, "requires": { "requires_any": { "requirements": [
            { "provider_name": "any" }, { "allow_missing": {} },
        ] } } }],
    });
    filter(
        "envoy.filters.http.jwt_authn",
        "filters.http.jwt_authn.v3.JwtAuthentication",
        settings,
    )
}

fn filter(name: &str, kind: &str, mut settings: Value) -> Value {
    set(
        &mut settings,
        "@type",
        json!(format!("{TYPE}.extensions.{kind}")),
    );
    json!({ "name": name, "typed_config": settings })
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

fn cluster(name: &str, address: &Value, http2: bool) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
        },
    });
    if let (true, Some(cluster)) = (http2, cluster.as_object_mut()) {
        let options = json!({
            "@type": format!("{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions"),
            "explicit_http_config": { "http2_protocol_options": {} },
        });
        let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        cluster.insert(
            "typed_extension_protocol_options".into(),
            json!({ name: options }),
        );
    }
    cluster
}

fn access_log(path: &str) -> Value {
    json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": format!("{TYPE}.extensions.access_loggers.file.v3.FileAccessLog"),
            "path": path,
            "log_format": { "json_format": {
                "mark": "%REQ(X-MARK)%",
                "path": "%REQ(:PATH)%",
                "status": "%RESPONSE_CODE%",
                "details": "%RESPONSE_CODE_DETAILS%",
                "http": "%DYNAMIC_METADATA(envoy.filters.http.ext_authz)%",
                "network": "%DYNAMIC_METADATA(envoy.filters.network.ext_authz)%",
            } },
        },
    })
}
