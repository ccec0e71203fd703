//! The way to an OpenTelemetry collector over gRPC: its address, TLS both ways, what every message is sent with.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use tonic::Request;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{Ascii, AsciiMetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// Longest value of a header, in bytes.
const LONGEST: u64 = 16 << 10;

/// Shortest time between two looks at files of headers.
const ANEW: Duration = Duration::from_secs(1);

/// Where a collector is, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub endpoint: String,
    /// Certificate authorities of the collector, PEM; `None`: the platform's.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its key, PEM, for a collector that asks for one.
    pub client: Option<ClientFiles>,
    /// What each message is sent with, such as `authorization`.
    pub headers: Vec<Header>,
    /// Whether messages are compressed.
    pub compression: Compression,
    /// Longest time of one message.
    pub timeout: Duration,
}

impl Collector {
    /// A collector at `endpoint` that asks for nothing.
    #[must_use]
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            ca_file: None,
            client: None,
            headers: Vec::new(),
            compression: Compression::default(),
            timeout: Duration::from_secs(10),
        }
    }
}

/// Certificate and key for the collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// Certificate, PEM, intermediate ones after it.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// How messages are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip.
    Gzip,
}

/// A header of each message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    name: AsciiMetadataKey,
    value: HeaderValue,
}

/// What a header holds, or where that is read.
#[derive(Clone, PartialEq, Eq)]
pub enum HeaderValue {
    /// This text.
    Text(String),
    /// The content of a file without the end of its last line, read anew as it changes.
    File(PathBuf),
}

/// A text may be a credential: it is not shown.
impl fmt::Debug for HeaderValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(***)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// Why a header cannot be sent. Its value is not in the words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAHeader {
    /// The name.
    #[error("`{0}` is no name of a header that a message can be sent with")]
    Name(String),
    /// The value.
    #[error("the value of the header `{0}` is empty, too long, or holds what no header may")]
    Value(String),
}

/// Why a collector cannot be reached as configured.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// No address.
    #[error("`{0}` is no address of a collector: write `http://HOST:PORT` or `https://HOST:PORT`")]
    Endpoint(String),
    /// A file of TLS cannot be read.
    #[error("cannot read `{file}` for TLS to the collector: {source}")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The value of a header cannot be read.
    #[error("cannot read the header `{name}` for the collector from `{file}`: {source}")]
    Header {
        /// The header.
        name: String,
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A header cannot be sent.
    #[error("{0}; it is for the collector")]
    NotAHeader(#[from] NotAHeader),
    /// TLS cannot be set up.
    #[error("cannot set up TLS to the collector: {0}")]
    Tls(#[from] tonic::transport::Error),
}

impl Header {
    /// The header `name`, in whatever case it is written.
    ///
    /// # Errors
    /// [`NotAHeader`].
    pub fn new(name: &str, value: HeaderValue) -> Result<Self, NotAHeader> {
        let lower = name.to_ascii_lowercase();
        // What gRPC itself writes, and headers of a connection, which HTTP/2 does not have.
        let taken = matches!(
            lower.as_str(),
            "te" | "content-type"
                | "content-length"
                | "connection"
                | "transfer-encoding"
                | "upgrade"
                | "host"
        );
        let key = AsciiMetadataKey::from_bytes(lower.as_bytes())
            .ok()
            .filter(|_| !taken && !lower.starts_with("grpc-") && !lower.ends_with("-bin"))
            .ok_or_else(|| NotAHeader::Name(name.to_owned()))?;
        let header = Self { name: key, value };
        if let HeaderValue::Text(text) = &header.value {
            header.value_of(text)?;
        }
        Ok(header)
    }

    /// The name, in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Whether its value is in a file.
    fn is_file(&self) -> bool {
        matches!(self.value, HeaderValue::File(_))
    }

    fn value_of(&self, text: &str) -> Result<MetadataValue<Ascii>, NotAHeader> {
        let wrong = || NotAHeader::Value(self.name().to_owned());
        let text = text.trim();
        let short = u64::try_from(text.len()).is_ok_and(|length| length <= LONGEST);
        let fits = !text.is_empty() && text.is_ascii() && short;
        let value = fits.then(|| text.parse::<MetadataValue<Ascii>>().ok());
        let mut value = value.flatten().ok_or_else(wrong)?;
        // Neither shown nor kept in the tables of HTTP/2's compression.
        value.set_sensitive(true);
        Ok(value)
    }

    /// What is sent now.
    fn read(&self) -> Result<MetadataValue<Ascii>, CollectorError> {
        let path = match &self.value {
            HeaderValue::Text(text) => return Ok(self.value_of(text)?),
            HeaderValue::File(path) => path,
        };
        let unreadable = |source| CollectorError::Header {
            name: self.name().to_owned(),
            file: path.clone(),
            source,
        };
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text))
            .map_err(unreadable)?;
        Ok(self.value_of(&text)?)
    }
}

/// The way to a collector, connected when it is first needed.
#[derive(Clone, Debug)]
pub struct Way {
    collector: Collector,
    channel: Channel,
    headers: MetadataMap,
    /// When the headers were read.
    looked: Instant,
}

impl Way {
    /// The way to `collector`, with its files as they are now.
    ///
    /// # Errors
    /// [`CollectorError`].
    pub fn open(collector: &Collector) -> Result<Self, CollectorError> {
        Ok(Self {
            channel: channel(collector)?,
            headers: headers(collector)?,
            looked: Instant::now(),
            collector: collector.clone(),
        })
    }

    /// The connection, for a client of one message.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// How messages are compressed.
    #[must_use]
    pub fn compression(&self) -> Option<CompressionEncoding> {
        match self.collector.compression {
            Compression::None => None,
            Compression::Gzip => Some(CompressionEncoding::Gzip),
        }
    }

    /// A connection with other files of TLS, where those of the last one may be why it failed. While they
    /// cannot be read, the last one stays.
    pub fn reopen(&mut self) {
        if self.collector.ca_file.is_none() && self.collector.client.is_none() {
            return;
        }
        match channel(&self.collector) {
            Ok(channel) => self.channel = channel,
            Err(error) => tracing::warn!(%error, "TLS to the collector stays as it was"),
        }
    }

    /// The message with its headers. What cannot be read leaves those of the last time.
    pub async fn request<T>(&mut self, message: T) -> Request<T> {
        if self.looked.elapsed() >= ANEW && self.collector.headers.iter().any(Header::is_file) {
            let collector = self.collector.clone();
            match tokio::task::spawn_blocking(move || headers(&collector)).await {
                Ok(Ok(headers)) => self.headers = headers,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "headers for the collector stay as they were");
                }
                Err(_) => {}
            }
            self.looked = Instant::now();
        }
        let mut request = Request::new(message);
        *request.metadata_mut() = self.headers.clone();
        request
    }
}

fn headers(collector: &Collector) -> Result<MetadataMap, CollectorError> {
    let mut map = MetadataMap::new();
    for header in &collector.headers {
        map.insert(header.name.clone(), header.read()?);
    }
    Ok(map)
}

fn channel(collector: &Collector) -> Result<Channel, CollectorError> {
    let wrong = || CollectorError::Endpoint(collector.endpoint.clone());
    let endpoint = Endpoint::from_shared(collector.endpoint.clone()).map_err(|_| wrong())?;
    let uri = endpoint.uri();
    let secure = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong()),
    };
    if uri.host().is_none_or(str::is_empty) {
        return Err(wrong());
    }
    let mut endpoint = endpoint
        .connect_timeout(collector.timeout)
        .timeout(collector.timeout);
    if secure {
        let pem = match &collector.ca_file {
            Some(file) => read(file)?,
            None => platform_authorities(),
        };
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
        if let Some(files) = &collector.client {
            let identity = Identity::from_pem(read(&files.certificate)?, read(&files.key)?);
            tls = tls.identity(identity);
        }
        endpoint = endpoint.tls_config(tls)?;
    }
    Ok(endpoint.connect_lazy())
}

fn read(file: &Path) -> Result<Vec<u8>, CollectorError> {
    std::fs::read(file).map_err(|source: io::Error| CollectorError::Unreadable {
        file: file.to_owned(),
        source,
    })
}

/// The platform's certificate authorities, in PEM.
fn platform_authorities() -> Vec<u8> {
    let mut pem = String::new();
    for certificate in rustls_native_certs::load_native_certs().certs {
        let text = base64::engine::general_purpose::STANDARD.encode(certificate);
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in text.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_header_is_refused_and_no_value_is_shown() {
        let text = |text: &str| HeaderValue::Text(text.to_owned());
        for name in [
            "",
            "a b",
            "grpc-timeout",
            "x-token-bin",
            "TE",
            "Content-Type",
            ":path",
            "ä",
        ] {
            let refused = Header::new(name, text("hush")).unwrap_err();
            assert_eq!(refused, NotAHeader::Name(name.to_owned()));
        }
        for value in ["", " \n", "hush\nhush", "h\u{e4}sh", &"a".repeat(20_000)] {
            let refused = Header::new("Authorization", text(value)).unwrap_err();
            assert_eq!(refused, NotAHeader::Value("authorization".to_owned()));
        }
        let header = Header::new("Authorization", text("Bearer hush")).unwrap();
        let mut collector = Collector::new("http://a:1");
        collector.headers.push(header);
        let shown = format!("{collector:?} {:?}", headers(&collector).unwrap());
        assert!(shown.contains("authorization"), "{shown}");
        assert!(!shown.contains("hush"), "{shown}");
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_refused_by_name() {
        for endpoint in [
            "",
            "collector",
            "collector:4317",
            "ftp://a:1",
            "http://",
            "http:///x",
        ] {
            let refused = Way::open(&Collector::new(endpoint)).unwrap_err();
            let words = refused.to_string();
            assert!(
                words.starts_with(&format!("`{endpoint}` is no address")),
                "{words}"
            );
        }
        for endpoint in [
            "http://127.0.0.1:4317",
            "http://[::1]:1",
            "https://collector:4317",
        ] {
            assert!(Way::open(&Collector::new(endpoint)).is_ok(), "{endpoint}");
        }
    }
}
