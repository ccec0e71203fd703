//! The grammar of X-Forwarded-Client-Cert (Envoy's manual, "x-forwarded-client-cert").
//!
//! ```text
//! header  = element *( "," element )
//! element = pair *( ";" pair )
//! pair    = key "=" value               keys in any case
//! value   = *octet                      without , ; = "
//!         / DQUOTE *( octet / "\" DQUOTE ) DQUOTE
//! ```
//!
//! Envoy quotes a value that holds `,`, `;` or `=`. What is not this grammar refuses the whole header:
//! of two readings of one text, one is an attacker's.

/// Most elements of one header; a chain of proxies is not longer.
const MAX_ELEMENTS: usize = 64;

/// One hop: what a proxy says of its client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// `By`: URI names of the proxy's own certificate.
    pub by: Vec<String>,
    /// `Hash`: SHA-256 of the client's certificate, hexadecimal.
    pub hash: Option<String>,
    /// `Cert`: the client's certificate, percent-encoded PEM.
    pub certificate: Option<String>,
    /// `Chain`: the client's chain, percent-encoded PEM.
    pub chain: Option<String>,
    /// `Subject`: subject of the client's certificate, RFC 2253.
    pub subject: Option<String>,
    /// `URI`: URI names of the client's certificate.
    pub uris: Vec<String>,
    /// `DNS`: DNS names of the client's certificate.
    pub dns_names: Vec<String>,
}

/// Why a header is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidXfcc {
    /// An element without a pair, or nothing at all.
    #[error("an element is empty")]
    Empty,
    /// A pair without `=`.
    #[error("`{0}` has no value")]
    NoValue(String),
    /// A key that the grammar does not have.
    #[error("`{0}` is no key of this header")]
    UnknownKey(String),
    /// A key that may be there once.
    #[error("`{0}` is there twice in one element")]
    Repeated(&'static str),
    /// A quote that is not closed, or something behind one.
    #[error("a quoted value does not end where it must")]
    Quote,
    /// A bare value with a character that needs quotes.
    #[error("a value that needs quotes has none")]
    Bare,
    /// A hash that is none.
    #[error("`Hash` is not hexadecimal")]
    Hash,
    /// More elements than proxies could add.
    #[error("there are more than {MAX_ELEMENTS} elements")]
    TooMany,
}

/// Reads one header value, from left to right: the last element is the nearest client.
///
/// # Errors
/// [`InvalidXfcc`]: one bad element refuses them all.
pub fn parse(header: &str) -> Result<Vec<Element>, InvalidXfcc> {
    let mut rest = header.trim_matches(BLANK);
    let mut elements = Vec::new();
    loop {
        let (element, after) = element(rest)?;
        elements.push(element);
        if elements.len() > MAX_ELEMENTS {
            return Err(InvalidXfcc::TooMany);
        }
        match after {
            None => return Ok(elements),
            Some(after) => rest = after,
        }
    }
}

const BLANK: [char; 2] = [' ', '\t'];

/// One element, and what stands behind its comma.
fn element(text: &str) -> Result<(Element, Option<&str>), InvalidXfcc> {
    let mut element = Element::default();
    let mut rest = text.trim_start_matches(BLANK);
    if rest.is_empty() || rest.starts_with(',') {
        return Err(InvalidXfcc::Empty);
    }
    loop {
        // Envoy itself may leave a `;` at the end of an element.
        if rest.is_empty() {
            return Ok((element, None));
        }
        if let Some(next) = rest.strip_prefix(',') {
            return Ok((element, Some(next)));
        }
        let end = rest.find(['=', ',', ';', '"']).unwrap_or(rest.len());
        let (key, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let key = key.trim_matches(BLANK);
        let after = after
            .strip_prefix('=')
            .ok_or_else(|| InvalidXfcc::NoValue(shown(key)))?;
        let (value, after) = value(after)?;
        set(&mut element, key, value)?;
        let after = after.trim_start_matches(BLANK);
        rest = match after.strip_prefix(';') {
            Some(next) => next.trim_start_matches(BLANK),
            None => after,
        };
    }
}

/// One value, and what stands behind it: nothing, `,` or `;`.
fn value(text: &str) -> Result<(String, &str), InvalidXfcc> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ';']).unwrap_or(text.len());
        let (bare, rest) = text.split_at_checked(end).unwrap_or((text, ""));
        // `=` is let through: proxies leave the query of a URI bare.
        return match bare.contains('"') {
            true => Err(InvalidXfcc::Bare),
            false => Ok((bare.trim_end_matches(BLANK).to_owned(), rest)),
        };
    };
    let mut value = String::new();
    let mut rest = quoted.chars();
    while let Some(character) = rest.next() {
        match character {
            '"' => {
                let behind = rest.as_str();
                let ends = behind.trim_start_matches(BLANK);
                return match ends.is_empty() || ends.starts_with([',', ';']) {
                    true => Ok((value, behind)),
                    false => Err(InvalidXfcc::Quote),
                };
            }
            // Only a quote is escaped: a subject's own backslashes stay as they are.
            '\\' if rest.as_str().starts_with('"') => {
                rest.next();
                value.push('"');
            }
            other => value.push(other),
        }
    }
    Err(InvalidXfcc::Quote)
}

fn set(element: &mut Element, key: &str, value: String) -> Result<(), InvalidXfcc> {
    let once = |slot: &mut Option<String>, name, value: String| match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(InvalidXfcc::Repeated(name)),
    };
    match key.to_ascii_lowercase().as_str() {
        "by" => element.by.push(value),
        "uri" => element.uris.push(value),
        "dns" => element.dns_names.push(value),
        "subject" => once(&mut element.subject, "Subject", value)?,
        "cert" => once(&mut element.certificate, "Cert", value)?,
        "chain" => once(&mut element.chain, "Chain", value)?,
        "hash" => {
            if value.is_empty() || !value.bytes().all(|octet| octet.is_ascii_hexdigit()) {
                return Err(InvalidXfcc::Hash);
            }
            once(&mut element.hash, "Hash", value)?;
        }
        _ => return Err(InvalidXfcc::UnknownKey(shown(key))),
    }
    Ok(())
}

/// A piece of the header for a message: short, and nothing that a terminal would act on.
fn shown(text: &str) -> String {
    text.chars()
        .take(40)
        .collect::<String>()
        .escape_debug()
        .to_string()
}
