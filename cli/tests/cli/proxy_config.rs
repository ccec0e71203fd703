//! `authz config`: what it prints, and what it says is missing.

use super::run::Folder;

const BOTH: &str = "\
default_workload: shop/api
mesh: {pathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}}
custom_providers: {portcullis: self}
listeners:
  - address: 0.0.0.0:9393
  - address: 127.0.0.1:9494
    dialect: nginx
    identity: {source: certificate, header: X-Client-Cert}
    trusted_peers: [127.0.0.1]
  - {address: \"unix:/run/p.sock\", dialect: caddy}
  - {address: \"unix:/run/h.sock\", dialect: haproxy}
";

#[test]
fn what_is_printed_is_filled_in() {
    let folder = Folder::new(&[("portcullis.yaml", BOTH)]);
    let print = |proxy: &str| {
        let outcome = folder.run(&["authz", "config", proxy, "--config", "portcullis.yaml"]);
        assert_eq!(outcome.code, 0, "{outcome:?}");
        outcome
    };
    let envoy = print("envoy");
    for filled in [
        "address: \"127.0.0.1\", port_value: 9393 ",
        "portcullis.workload: shop/api",
        "merge_slashes: true",
        "path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD",
        "failure_mode_allow: false",
    ] {
        assert!(envoy.stdout.contains(filled), "{filled}\n{}", envoy.stdout);
    }
    assert!(!envoy.stdout.contains("9191"), "{}", envoy.stdout);
    assert_eq!(envoy.stderr, "");
    let nginx = print("nginx");
    assert!(
        nginx
            .stdout
            .starts_with("# ==== nginx.conf ====\n# nginx asks")
    );
    assert!(
        nginx
            .stdout
            .contains("\n# ==== portcullis-headers.conf ====\n")
    );
    assert!(nginx.stdout.contains("server 127.0.0.1:9494;"));
    assert_eq!(nginx.stderr, "");
    let caddy = print("caddy");
    assert!(
        caddy.stdout.contains("forward_auth unix//run/p.sock {"),
        "{}",
        caddy.stdout
    );
    assert!(
        caddy.stderr.starts_with("note: clients have no identity until the listener says `identity: {source: certificate, header: x-client-cert}`"),
        "{}",
        caddy.stderr
    );
    for (proxy, filled) in [
        ("istio", "port: 9393"),
        ("contour", "services: [ { name: portcullis, port: 9393 } ]"),
        ("envoy-gateway", "value: shop/api }"),
    ] {
        let outcome = print(proxy);
        assert!(outcome.stdout.contains(filled), "{}", outcome.stdout);
        assert_eq!(outcome.stderr, "");
    }
}

/// With the example's own addresses, what is printed is what is shipped, to the letter.
#[test]
fn the_example_comes_out_as_it_is_shipped() {
    for (proxy, dialect, port) in [
        ("envoy", "grpc", 9191),
        ("envoy", "envoy-http", 9192),
        ("istio", "grpc", 9191),
        ("contour", "grpc", 9191),
        ("envoy-gateway", "grpc", 9191),
        ("nginx", "nginx", 9192),
        ("ingress-nginx", "ingress-nginx", 9192),
        ("haproxy", "haproxy", 9192),
        ("apache", "apache", 9192),
        ("traefik", "traefik", 9192),
        ("caddy", "caddy", 9192),
    ] {
        let prefix = match dialect {
            "envoy-http" => ", path_prefix: /authz",
            _ => "",
        };
        let config = format!(
            "default_workload: shop/web\nlisteners: [{{address: 127.0.0.1:{port}, dialect: {dialect}{prefix}}}]\n"
        );
        let folder = Folder::new(&[("portcullis.yaml", &config)]);
        let arguments = [
            "authz",
            "config",
            proxy,
            "--config",
            "portcullis.yaml",
            "--into",
            "out",
        ];
        let outcome = folder.run(&arguments);
        assert_eq!(outcome.code, 0, "{proxy}: {outcome:?}");
        let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../deploy/proxies")
            .join(proxy);
        let mut files = 0;
        for entry in std::fs::read_dir(folder.path().join("out")).unwrap() {
            let entry = entry.unwrap();
            let written = std::fs::read_to_string(entry.path()).unwrap();
            let original = std::fs::read_to_string(shipped.join(entry.file_name())).unwrap();
            let written = written.replace("\"127.0.0.1\", port_value", "127.0.0.1, port_value");
            assert_eq!(written, original, "{proxy}: {:?}", entry.file_name());
            files += 1;
        }
        assert!(files > 0, "{proxy}");
    }
}

#[test]
fn files_are_written_where_they_are_wanted() {
    let folder = Folder::new(&[("portcullis.yaml", BOTH)]);
    let arguments = [
        "authz",
        "config",
        "nginx",
        "--config",
        "portcullis.yaml",
        "--into",
        "a/nginx",
    ];
    folder.run(&arguments).is(0, "", "");
    for file in ["nginx.conf", "portcullis-headers.conf"] {
        assert!(folder.path().join("a/nginx").join(file).is_file(), "{file}");
    }
}

#[test]
fn what_cannot_be_filled_in_is_said() {
    let folder = Folder::new(&[("portcullis.yaml", BOTH)]);
    folder
        .run(&["authz", "config", "traefik", "--config", "portcullis.yaml"])
        .is(1, "", "error: no listener speaks `traefik`; add one to `listeners` of the configuration, with `dialect: traefik`\n");
    folder
        .run(&["authz", "config", "haproxy", "--config", "portcullis.yaml"])
        .is(1, "", "error: this proxy cannot ask over the unix socket `/run/h.sock`: add a listener with an address and a port\n");
    folder
        .run(&["authz", "config", "nginx", "--config", "portcullis.yaml", "--listener", "127.0.0.1:1"])
        .is(1, "", "error: no listener at `127.0.0.1:1` speaks `nginx`; add one to `listeners` of the configuration, with `dialect: nginx`\n");
    // Without a configuration there is the one listener that every server has.
    let outcome = folder.run(&["authz", "config", "envoy"]);
    assert_eq!(outcome.code, 0);
    assert_eq!(
        outcome.stderr,
        "note: `shop/web` stands for the workload behind the proxy: write yours, or set `default_workload`\n"
    );
}

#[test]
fn every_mistake_of_an_http_listener_is_named_with_its_place() {
    let folder = Folder::new(&[(
        "portcullis.yaml",
        "\
listeners:
  - address: 127.0.0.1:1
    dialect: ngnix
  - address: 127.0.0.1:2
    identity: {source: xfcc}
  - address: 127.0.0.1:3
    dialect: nginx
    path: normalised
    path_prefix: /x
    port: 0
    identity: {source: certificate, trusted_hops: 1}
    trusted_peers: [localhost]
    stated: [workloads]
  - address: 127.0.0.1:4
    dialect: traefik
    identity: {source: xfcc, header: x}
  - address: 127.0.0.1:5
    dialect: envoy-http
    path_prefix: authz?
    identity: {}
    missing_token_status: 500
limits: {header_timeout: 0s}
",
    )]);
    folder.run(&["policy", "decide", "--config", "portcullis.yaml"]).is(
        1,
        "",
        "\
error: the configuration `portcullis.yaml` has mistakes
  portcullis.yaml:3:14: `ngnix` is none of `grpc`, `envoy-http`, `nginx`, `ingress-nginx`, `traefik`, `caddy`, `haproxy`, `apache`
  portcullis.yaml:5:15: `identity` needs an HTTP `dialect`; over gRPC Envoy itself says it
  portcullis.yaml:8:11: only Envoy normalises before it asks; leave `path` out
  portcullis.yaml:9:18: `path_prefix` belongs to `envoy-http`; `nginx` carries the path in a header
  portcullis.yaml:10:11: `0` is no port of a workload
  portcullis.yaml:11:15: `source: certificate` needs the `header` that holds it, such as `ssl-client-cert`, `x-client-cert`, `x-ssl-client-cert`, `x-forwarded-tls-client-cert`, `client-cert`
  portcullis.yaml:11:51: `trusted_hops` belongs to `source: xfcc`
  portcullis.yaml:12:21: `localhost` names no peer: write an address (`10.0.0.7`), a block (`10.0.0.0/8`), `uid:NUMBER` or a SPIFFE ID
  portcullis.yaml:13:14: `workloads` is none of `workload`, `target`, `service`, `remote_address`, `direct_address`
  portcullis.yaml:14:5: `identity` and `stated` need `trusted_peers`: whose word is believed?
  portcullis.yaml:16:38: `header` belongs to `source: certificate`
  portcullis.yaml:19:18: `authz?` is no path; write `/` and letters, digits, `-`, `.`, `_`, `~`, `/`
  portcullis.yaml:20:15: `identity` needs a `source`: `xfcc`, `certificate` or `peer`
  portcullis.yaml:21:27: `500` is none of `401`, `403`
  portcullis.yaml:22:26: `0s` is no duration; write a number with `ms`, `s` or `m`, such as `5s`, up to a day
",
    );
}
