//! The ways in which the chart is installed: every switch at least once.

/// Name and values.
pub const MATRIX: &[(&str, &str)] = &[
    ("defaults", "{}"),
    (
        "daemonset",
        "authz: {mode: daemonset, policies: {root.yaml: '# none yet'}, workloadAPI: {mount: csi}}",
    ),
    (
        "sidecar",
        "authz:\n  mode: sidecar\n  policies: {root.yaml: '# none yet'}\n  sidecar:\n    workloads:\n      \
         - {namespace: shop, serviceAccount: web}\n      - {namespace: shop, serviceAccount: cart}\n      \
         - {namespace: bank, serviceAccount: ledger}",
    ),
    (
        "scaled",
        "authz: {autoscaling: {enabled: true}, podDisruptionBudget: {maxUnavailable: 25%}}\n\
         image: {digest: 'sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'}\n\
         imagePullSecrets: [{name: registry}]",
    ),
    (
        "watched",
        "serviceMonitor: {enabled: true, labels: {release: prometheus}}\nprometheusRule: {enabled: true}\n\
         dashboards: {enabled: true}\nca: {enabled: true}",
    ),
    (
        "proxies",
        "authz:\n  listeners:\n    - {name: grpc, port: 9191, settings: {path: normalised}}\n    \
         - {name: nginx, port: 9192, settings: {dialect: ingress-nginx, workload: shop/web, trusted_peers: [10.0.0.0/8]}}\n  \
         config: {custom_providers: {portcullis: self}, decision_log: {output: stdout}, limits: {deadline: 2s}}\n  \
         extraEgress: [{ports: [{port: 4317, protocol: TCP}]}]\n\
         networkPolicy:\n  proxies: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: istio-system}}}]\n  \
         apiServer: {cidrs: [10.96.0.1/32], ports: [6443]}\n\
         mesh: {rootNamespace: istio-system, trustDomain: corp.example}",
    ),
    (
        "webhook",
        "admission: {failurePolicy: Ignore, timeoutSeconds: 2, config: {enforcement: warn, floor: audit, \
         break_glass: {groups: [sre]}, limits: {reviews: 64}}, certManager: {enabled: true, issuerRef: {name: cluster}}}\n\
         kubernetes: {status: own, mesh_config: istio-canary, root_namespace: istio-system}",
    ),
    (
        "authority",
        "authz: {enabled: false}\nadmission: {enabled: false}\ncrds: {clusterSPIFFEID: false}\n\
         ca:\n  enabled: true\n  trustDomain: corp.example\n  config: {x509_ttl: 30m, revocation: true, \
         bundle_endpoint: {listen: '0.0.0.0:8443'}}\n  endpoints: [{name: bundle, port: 8443}]\n  csi: {enabled: true}\n  \
         passphraseSecret: {name: passphrase}\n  upstreamSecret: {name: upstream}\n  nodeSelector: {identity: here}\n  \
         persistence: {storageClass: fast}",
    ),
    (
        "authority-alone",
        "authz: {enabled: false}\nadmission: {enabled: false}\ncrds: {enabled: false}\nnetworkPolicy: {enabled: false}\n\
         ca: {enabled: true, hostPID: false, kubernetes: {enabled: false}, workloadAPI: {hostPath: ''}, persistence: {enabled: false}}",
    ),
    (
        "bare",
        "runAsUser: null\nrbac: {create: false}\nnetworkPolicy: {enabled: false}\nfullnameOverride: gate\n\
         labels: {team: platform}\nauthz: {replicas: 1, podDisruptionBudget: {enabled: false}, serviceAccount: {create: false, name: own}, drainDelaySeconds: 0}\n\
         admission: {drainDelaySeconds: 0, drainSeconds: 1}",
    ),
];
