//! The shipped snippets, as they are.

use crate::args::ProxyArg;
use crate::config::Listener;

/// What is shipped for one proxy.
#[derive(Clone, Copy, Debug)]
pub struct Snippet {
    /// The proxy.
    pub proxy: ProxyArg,
    /// Name and text of each file.
    pub files: &'static [(&'static str, &'static str)],
    /// The identity that it hands over, as `listeners[].identity` says it; `None` where gRPC carries it.
    pub identity: Option<Identity>,
}

/// The identity that a snippet hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// X-Forwarded-Client-Cert.
    Xfcc,
    /// The client's certificate in this header.
    Certificate(&'static str),
}

macro_rules! shipped {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        &[$((
            $name,
            include_str!(concat!("../../../../deploy/proxies/", $folder, "/", $name)),
        )),+]
    };
}

/// The snippet of `proxy` for `listener`: Envoy has one for each way to ask.
pub fn of(proxy: ProxyArg, listener: &Listener) -> Snippet {
    let certificate = Some(Identity::Certificate("x-client-cert"));
    let (files, identity): (&'static [(&str, &str)], _) = match proxy {
        ProxyArg::Envoy if listener.http.is_none() => (shipped!["envoy": "http.yaml"], None),
        ProxyArg::Envoy => (shipped!["envoy": "http-service.yaml"], Some(Identity::Xfcc)),
        ProxyArg::Istio => (shipped!["istio": "portcullis.yaml"], None),
        ProxyArg::Contour => (shipped!["contour": "portcullis.yaml"], None),
        ProxyArg::EnvoyGateway => (shipped!["envoy-gateway": "portcullis.yaml"], None),
        ProxyArg::Nginx => (
            shipped!["nginx": "nginx.conf", "portcullis-headers.conf"],
            certificate,
        ),
        ProxyArg::IngressNginx => (
            shipped!["ingress-nginx": "ingress.yaml"],
            Some(Identity::Certificate("ssl-client-cert")),
        ),
        ProxyArg::Haproxy => (
            shipped!["haproxy": "haproxy.cfg", "portcullis.lua"],
            certificate,
        ),
        ProxyArg::Apache => (
            shipped!["apache": "httpd.conf", "portcullis.lua"],
            certificate,
        ),
        ProxyArg::Traefik => (
            shipped!["traefik": "traefik.yml", "portcullis.yml"],
            Some(Identity::Certificate("x-forwarded-tls-client-cert")),
        ),
        ProxyArg::Caddy => (shipped!["caddy": "Caddyfile"], certificate),
    };
    Snippet {
        proxy,
        files,
        identity,
    }
}
