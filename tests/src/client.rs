//! A client that sends exactly the octets it is told to: raw paths, repeated headers, any source address.
//!
//! Ordinary HTTP clients normalise paths, fold headers and choose their address; what a policy makes of the
//! unordinary is what these tests are about.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{IpAddr as NameAddress, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, Protocol, Socket, Type};

/// Limit for each connect, read and write.
const LIMIT: Duration = Duration::from_secs(20);

/// Longest answer taken.
const LONGEST: usize = 1 << 20;

/// How to connect.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where to.
    pub address: SocketAddr,
    /// Own address; on loopback any of 127.0.0.0/8.
    pub source: Option<IpAddr>,
    /// TLS with this configuration.
    pub tls: Option<Arc<ClientConfig>>,
    /// Server name sent in the handshake.
    pub sni: Option<String>,
}

/// One request, written as it stands.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Method.
    pub method: String,
    /// Request target, raw.
    pub path: String,
    /// `Host`.
    pub host: String,
    /// Further headers, in order.
    pub headers: Vec<(String, String)>,
}

impl Exchange {
    /// `GET path` of host `example.com`.
    #[must_use]
    pub fn get(path: &str) -> Self {
        Self {
            method: "GET".into(),
            path: path.into(),
            host: "example.com".into(),
            headers: Vec::new(),
        }
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same with another method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = method.into();
        self
    }

    /// The same for another host.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.host = host.into();
        self
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
}

impl Answer {
    /// The first header of that name (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }
}

impl Client {
    /// Plain text, from anywhere.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            address,
            source: None,
            tls: None,
            sni: None,
        }
    }

    /// TLS with `config`, no server name.
    #[must_use]
    pub fn tls(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        Self {
            address,
            source: None,
            tls: Some(config.clone()),
            sni: None,
        }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Refused, timed out, or the handshake failed.
    pub fn connect(&self) -> io::Result<Connection> {
        let socket = Socket::new(
            Domain::for_address(self.address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        if let Some(source) = self.source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.connect_timeout(&self.address.into(), LIMIT)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        let Some(config) = &self.tls else {
            return Ok(Connection {
                stream: Box::new(stream),
            });
        };
        // An IP address as server name sends no SNI at all.
        let name = match &self.sni {
            Some(name) => ServerName::try_from(name.clone()).map_err(io::Error::other)?,
            None => ServerName::IpAddress(NameAddress::from(self.address.ip())),
        };
        let tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        Ok(Connection {
            stream: Box::new(StreamOwned::new(tls, stream)),
        })
    }

    /// One request on a connection of its own.
    ///
    /// # Errors
    /// No connection, or no whole answer.
    pub fn send(&self, exchange: &Exchange) -> io::Result<Answer> {
        self.connect()?.send(exchange)
    }

    /// Sends `line` over TCP and returns what comes back until as much has come or the peer closed.
    ///
    /// # Errors
    /// No connection, or nothing within the time limit.
    pub fn echo(&self, line: &str) -> io::Result<String> {
        self.connect()?.echo(line)
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// An open connection, for one request after the other.
pub struct Connection {
    stream: Box<dyn Stream>,
}

impl Connection {
    /// Sends one HTTP/1.1 request and reads its answer.
    ///
    /// # Errors
    /// The connection broke, or the answer is not HTTP/1.1 with a content-length.
    pub fn send(&mut self, exchange: &Exchange) -> io::Result<Answer> {
        let mut octets = format!(
            "{} {} HTTP/1.1\r\nhost: {}\r\n",
            exchange.method, exchange.path, exchange.host
        );
        for (name, value) in &exchange.headers {
            octets.push_str(&format!("{name}: {value}\r\n"));
        }
        octets.push_str("\r\n");
        self.stream.write_all(octets.as_bytes())?;
        self.stream.flush()?;
        self.answer(exchange.method == "HEAD")
    }

    fn answer(&mut self, without_body: bool) -> io::Result<Answer> {
        let mut buffer = Vec::new();
        let (mut answer, start) = loop {
            self.fill(&mut buffer)?;
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut response = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(start) =
                response.parse(&buffer).map_err(io::Error::other)?
            {
                let headers = response.headers.iter();
                let headers = headers.map(|header| {
                    (
                        header.name.to_ascii_lowercase(),
                        String::from_utf8_lossy(header.value).into_owned(),
                    )
                });
                let status = response.code.unwrap_or_default();
                break (
                    Answer {
                        status,
                        headers: headers.collect(),
                        body: String::new(),
                    },
                    start,
                );
            }
        };
        if without_body {
            return Ok(answer);
        }
        let body = if answer.header("transfer-encoding") == Some("chunked") {
            self.chunks(buffer.split_off(start))?
        } else {
            let length = answer.header("content-length").unwrap_or("0");
            let length = length.parse::<usize>().map_err(io::Error::other)?;
            while buffer.len() < start + length {
                self.fill(&mut buffer)?;
            }
            buffer
                .get(start..start + length)
                .unwrap_or_default()
                .to_vec()
        };
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Ok(answer)
    }

    /// Reads a chunked body of which `buffer` is the beginning.
    fn chunks(&mut self, mut buffer: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let parsed = httparse::parse_chunk_size(&buffer);
            let parsed = parsed.map_err(|_| io::Error::other("a chunk without a size"))?;
            let httparse::Status::Complete((start, size)) = parsed else {
                self.fill(&mut buffer)?;
                continue;
            };
            let end = usize::try_from(size)
                .map_err(io::Error::other)?
                .saturating_add(start);
            while buffer.len() < end.saturating_add(2) {
                self.fill(&mut buffer)?;
            }
            body.extend_from_slice(buffer.get(start..end).unwrap_or_default());
            buffer.drain(..end.saturating_add(2));
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// Sends `line` and returns what comes back until as much has come or the peer closed.
    ///
    /// # Errors
    /// The connection broke, or nothing came within the time limit.
    pub fn echo(&mut self, line: &str) -> io::Result<String> {
        self.stream.write_all(line.as_bytes())?;
        self.stream.flush()?;
        let mut buffer = Vec::new();
        while buffer.len() < line.len() {
            match self.fill(&mut buffer) {
                Ok(()) => {}
                Err(cause) if closed(&cause) => break,
                Err(cause) => return Err(cause),
            }
        }
        Ok(String::from_utf8_lossy(&buffer).into_owned())
    }

    fn fill(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ if buffer.len() > LONGEST => Err(io::Error::other("the answer is too long")),
            read => {
                buffer.extend_from_slice(chunk.get(..read).unwrap_or_default());
                Ok(())
            }
        }
    }
}

/// The peer ended the connection, in one of the ways it can.
#[must_use]
pub fn closed(cause: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        cause.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}
