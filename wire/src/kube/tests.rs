use std::fs;

use kube::Config;

use super::{Cluster, ConnectError, client, connect};

/// Any certificate will do: nothing is connected to.
const ROOT: &str = "-----BEGIN CERTIFICATE-----
MIIBtjCCAVugAwIBAgITBmyf1XSXNmY/Owua2eiedgPySjAKBggqhkjOPQQDAjA5
MQswCQYDVQQGEwJVUzEPMA0GA1UEChMGQW1hem9uMRkwFwYDVQQDExBBbWF6b24g
Um9vdCBDQSAzMB4XDTE1MDUyNjAwMDAwMFoXDTQwMDUyNjAwMDAwMFowOTELMAkG
A1UEBhMCVVMxDzANBgNVBAoTBkFtYXpvbjEZMBcGA1UEAxMQQW1hem9uIFJvb3Qg
Q0EgMzBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABCmXp8ZBf8ANm+gBG1bG8lKl
ui2yEujSLtf6ycXYqm0fc4E7O5hrOXwzpcVOho6AF2hiRVd9RFgdszflZwjrZt6j
QjBAMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgGGMB0GA1UdDgQWBBSr
ttvXBp43rDCGB5Fwx5zEGbF4wDAKBggqhkjOPQQDAgNJADBGAiEA4IWSoxe3jfkr
BqWTrBqYaGFy+uGh0PsceGCmQ5nFuMQCIQCcAu/xlJyzlvnrxir4tiz+OpAUFteM
YyRIHN8wfdVoOw==
-----END CERTIFICATE-----
";

fn config() -> Config {
    let mut config = Config::new("https://127.0.0.1:1".parse().unwrap());
    config.root_cert = Some(vec![der(ROOT)]);
    config
}

fn der(pem: &str) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem.as_bytes())
        .unwrap()
        .to_vec()
}

fn words(config: Config) -> String {
    match connect(config) {
        Ok(_) => panic!("connected"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn authorities_and_a_token_are_enough() {
    assert!(connect(config()).is_ok());
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_by_name() {
    let mut unverified = config();
    unverified.accept_invalid_certs = true;
    assert!(words(unverified).contains("`insecure-skip-tls-verify`"));

    let mut proxied = config();
    proxied.proxy_url = Some("http://127.0.0.1:3128".parse().unwrap());
    assert!(words(proxied).contains("`proxy-url`"));

    let mut rootless = config();
    rootless.root_cert = Some(vec![b"not a certificate".to_vec()]);
    assert!(words(rootless).contains("certificate authority"));

    let mut half = config();
    half.auth_info.client_certificate_data = Some("QQ==".to_owned());
    assert!(words(half).contains("client key"));

    let mut garbled = config();
    garbled.auth_info.client_certificate_data = Some("%".to_owned());
    assert!(words(garbled).contains("client certificate"));

    let mut named = config();
    named.tls_server_name = Some("not a name".to_owned());
    assert!(words(named).contains("tls-server-name"));
}

#[tokio::test]
async fn authorities_in_a_file_are_taken_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.crt");
    let mut config = config();
    config.root_cert_file = Some(path.clone());
    assert!(words(config.clone()).contains("ca.crt"));
    fs::write(&path, ROOT).unwrap();
    assert!(connect(config).is_ok());
}

#[tokio::test]
async fn a_kubeconfig_that_is_not_there_is_an_error() {
    let cluster = Cluster {
        kubeconfig: Some("/nonexistent/kubeconfig".into()),
        context: None,
    };
    let Err(error) = client(&cluster).await else {
        panic!("a client of nothing");
    };
    assert!(matches!(error, ConnectError::Kubeconfig(_)), "{error}");
}
