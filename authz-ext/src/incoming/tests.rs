use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tokio::net::{TcpStream, UnixStream};
use tokio_stream::StreamExt as _;

use super::*;

fn unix(path: &Path) -> Endpoint {
    Endpoint::Unix(path.to_owned())
}

#[tokio::test]
async fn a_socket_has_its_mode_and_goes_when_the_listener_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let mut incoming = Incoming::bind(&unix(&path), 0o600, &Load::default())
        .await
        .unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let _client = UnixStream::connect(&path).await.unwrap();
    assert!(matches!(incoming.next().await, Some(Ok(_))));
    drop(incoming);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    // Dropping a std listener leaves its file behind, as a killed process does.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let first = Incoming::bind(&unix(&path), 0o600, &Load::default())
        .await
        .unwrap();
    let error = Incoming::bind(&unix(&path), 0o600, &Load::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(UnixStream::connect(&path).await.is_ok());
    // One that another process put there is left alone.
    std::fs::remove_file(&path).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
}

#[tokio::test]
async fn a_file_in_the_way_is_never_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    std::fs::write(&path, "precious").unwrap();
    let error = Incoming::bind(&unix(&path), 0o600, &Load::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    let nowhere = folder.path().join("no/such/a.sock");
    assert!(
        Incoming::bind(&unix(&nowhere), 0o600, &Load::default())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn port_zero_becomes_a_real_port() {
    let any = Endpoint::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
    let mut incoming = Incoming::bind(&any, 0, &Load::default()).await.unwrap();
    let Endpoint::Tcp(address) = incoming.endpoint().clone() else {
        panic!("a TCP endpoint");
    };
    assert_ne!(address.port(), 0);
    let _client = TcpStream::connect(address).await.unwrap();
    assert!(matches!(incoming.next().await, Some(Ok(_))));
}
