//! Sockets that a service manager opened for us: systemd's socket activation, `sd_listen_fds(3)`.

use std::io;
use std::sync::{LazyLock, Mutex, PoisonError};

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};

use super::Listener;
use crate::endpoint::Endpoint;

/// What the process was given. Each socket is taken once.
static GIVEN: LazyLock<Mutex<Given>> = LazyLock::new(|| {
    Mutex::new(Given {
        sockets: ListenFd::from_env(),
        names: names(&std::env::var("LISTEN_FDNAMES").unwrap_or_default()),
    })
});

struct Given {
    sockets: ListenFd,
    names: Vec<String>,
}

fn names(variable: &str) -> Vec<String> {
    variable.split(':').map(str::to_owned).collect()
}

/// Takes the socket `name` (`FileDescriptorName=` of the socket unit).
pub(super) fn take(name: &str) -> io::Result<(Endpoint, Listener)> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let count = given.sockets.len();
    let missing = |words: String| io::Error::new(io::ErrorKind::NotFound, words);
    if count == 0 {
        return Err(missing(
            "the service manager handed over no socket; start it by its socket unit".to_owned(),
        ));
    }
    let places: Vec<usize> = (0..count)
        .filter(|place| given.names.get(*place).is_some_and(|given| given == name))
        .collect();
    let [place] = *places else {
        let names = given.names.join("`, `");
        return Err(missing(match places.len() {
            0 => format!(
                "the service manager handed over no such socket, only `{names}`; give it the name by `FileDescriptorName=`"
            ),
            _ => "the service manager handed over several sockets of this name; give each a socket unit of its own".to_owned(),
        }));
    };
    let taken = || {
        io::Error::new(
            io::ErrorKind::AddrInUse,
            "another listener has taken the socket",
        )
    };
    match given.sockets.take_tcp_listener(place) {
        Ok(listener) => {
            let listener = listener.ok_or_else(taken)?;
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            let endpoint = Endpoint::Tcp(listener.local_addr()?);
            Ok((endpoint, Listener::Tcp(listener)))
        }
        Err(_) => {
            let listener = given.sockets.take_unix_listener(place)?.ok_or_else(taken)?;
            listener.set_nonblocking(true)?;
            let listener = UnixListener::from_std(listener)?;
            let address = listener.local_addr()?;
            let path = address.as_pathname().map(std::path::Path::to_owned);
            let endpoint = match path {
                Some(path) => Endpoint::Unix(path),
                None => Endpoint::Activated(name.to_owned()),
            };
            // The file is the service manager's.
            Ok((
                endpoint,
                Listener::Unix {
                    listener,
                    _file: None,
                },
            ))
        }
    }
}
