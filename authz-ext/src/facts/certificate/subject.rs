//! A distinguished name as Envoy prints it: RFC 2253, in the dialect of BoringSSL's
//! `XN_FLAG_RFC2253` (last name first, `CN=x,O=y`; octets above 0x7F as `\C3\A9`).

use std::fmt::Write as _;

use x509_parser::asn1_rs::{Any, Tag, ToDer};
use x509_parser::x509::X509Name;

/// Short names of the attribute types that BoringSSL knows; others print as dotted numbers.
const SHORT_NAMES: [(&str, &str); 32] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.14", "searchGuide"),
    ("2.5.4.15", "businessCategory"),
    ("2.5.4.16", "postalAddress"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.18", "postOfficeBox"),
    ("2.5.4.19", "physicalDeliveryOfficeName"),
    ("2.5.4.20", "telephoneNumber"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.44", "generationQualifier"),
    ("2.5.4.45", "x500UniqueIdentifier"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.65", "pseudonym"),
    ("2.5.4.72", "role"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.3", "mail"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("1.2.840.113549.1.9.2", "unstructuredName"),
    ("1.2.840.113549.1.9.8", "unstructuredAddress"),
];

/// Empty for an empty name.
pub(super) fn rfc2253(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let sets: Vec<_> = name.iter_rdn().collect();
    for set in sets.iter().rev() {
        let attributes: Vec<_> = set.iter().collect();
        for (index, attribute) in attributes.iter().rev().enumerate() {
            if !text.is_empty() {
                text.push(if index == 0 { ',' } else { '+' });
            }
            let oid = attribute.attr_type().to_id_string();
            let short = SHORT_NAMES.iter().find(|(known, _)| *known == oid);
            let name = short.map_or(oid.as_str(), |(_, short)| short);
            let characters = short.and_then(|_| characters(attribute.attr_value()));
            let _ = write!(text, "{name}=");
            match characters {
                Some(characters) => escape(&mut text, &characters),
                None => dump(&mut text, attribute.attr_value()),
            }
        }
    }
    text
}

/// The value's characters, if its type is a character string.
fn characters(value: &Any<'_>) -> Option<Vec<char>> {
    let octets = value.data;
    match value.tag() {
        Tag::Utf8String => Some(std::str::from_utf8(octets).ok()?.chars().collect()),
        // One octet a character, read as Latin-1 whatever the type promises.
        Tag::NumericString
        | Tag::PrintableString
        | Tag::TeletexString
        | Tag::Ia5String
        | Tag::VisibleString => octets
            .iter()
            .map(|octet| Some(char::from(*octet)))
            .collect(),
        Tag::BmpString => wide::<2>(octets),
        Tag::UniversalString => wide::<4>(octets),
        _ => None,
    }
}

fn wide<const N: usize>(octets: &[u8]) -> Option<Vec<char>> {
    let (characters, rest) = octets.as_chunks::<N>();
    let code = |chunk: &[u8; N]| {
        chunk
            .iter()
            .fold(0, |code, octet| code << 8 | u32::from(*octet))
    };
    rest.is_empty().then(|| {
        characters
            .iter()
            .map(|chunk| char::from_u32(code(chunk)))
            .collect()
    })?
}

fn escape(text: &mut String, characters: &[char]) {
    let last = characters.len().wrapping_sub(1);
    for (index, character) in characters.iter().enumerate() {
        let at_edge =
            index == 0 && matches!(character, ' ' | '#') || index == last && *character == ' ';
        match character {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => text.extend(['\\', *character]),
            _ if at_edge => text.extend(['\\', *character]),
            ' '..='~' => text.push(*character),
            _ => {
                for octet in character.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(text, "\\{octet:02X}");
                }
            }
        }
    }
}

/// `#` and the DER encoding in hexadecimal.
fn dump(text: &mut String, value: &Any<'_>) {
    text.push('#');
    for octet in value.to_der_vec().unwrap_or_default() {
        let _ = write!(text, "{octet:02X}");
    }
}
