//! Custom resource definitions of the projects that ours meets in a cluster, each from the project's own module.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::{Missing, Recipe, go};

const RECIPE: Recipe = Recipe {
    name: "definitions-1",
    executable: "definitions.yaml",
    remedy: go::REMEDY,
    make,
};

/// Module, and the files in it.
const MODULES: [(&str, &[&str]); 6] = [
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        &[
            "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
            "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        ],
    ),
    (
        "github.com/cert-manager/cert-manager@v1.19.1",
        &["deploy/crds/cert-manager.io_certificates.yaml"],
    ),
    (
        "github.com/projectcontour/contour@v1.33.0",
        &["examples/contour/01-crds.yaml"],
    ),
    (
        "github.com/envoyproxy/gateway@v1.7.0",
        &["charts/gateway-helm/crds/generated/gateway.envoyproxy.io_securitypolicies.yaml"],
    ),
    (
        "sigs.k8s.io/gateway-api@v1.4.0",
        &[
            "config/crd/standard/gateway.networking.k8s.io_referencegrants.yaml",
            "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
            "config/crd/standard/gateway.networking.k8s.io_gateways.yaml",
            "config/crd/standard/gateway.networking.k8s.io_gatewayclasses.yaml",
        ],
    ),
    (
        "github.com/traefik/traefik-helm-chart@v41.6.0+incompatible",
        &[
            "traefik/crds/traefik.io_middlewares.yaml",
            "traefik/crds/traefik.io_ingressroutes.yaml",
            "traefik/crds/traefik.io_tlsoptions.yaml",
        ],
    ),
];

/// One YAML stream: ServiceMonitor and PrometheusRule, cert-manager's Certificate, Contour's kinds, Envoy Gateway's
/// SecurityPolicy, Gateway API's Gateway, GatewayClass, HTTPRoute and ReferenceGrant, Traefik's Middleware, IngressRoute and TLSOption.
///
/// # Errors
/// They are not there yet and cannot be fetched.
pub fn definitions() -> Result<PathBuf, Missing> {
    RECIPE.obtain()
}

fn make(folder: &Path) -> io::Result<()> {
    let mut stream = File::create(folder.join(RECIPE.executable))?;
    for (module, files) in MODULES {
        go::with_module(folder, module, |unpacked| {
            for file in files {
                stream.write_all(b"---\n")?;
                stream.write_all(&fs::read(unpacked.join(file))?)?;
                stream.write_all(b"\n")?;
            }
            Ok(())
        })?;
    }
    Ok(())
}
