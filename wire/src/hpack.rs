//! Finds `:authority` in HPACK header blocks (RFC 7541) and overwrites what no authority may hold.

use crate::huffman::HuffmanRepair;

/// A header block that cannot be followed any further; `h2` will say what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost;

/// The octets of `:authority`, and the same in the code of RFC 7541 appendix B.
const NAME: &[u8] = b":authority";
const NAME_HUFFMAN: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];
/// Index of `:authority` in the static table (RFC 7541 appendix A).
const AUTHORITY: u32 = 1;

/// Repairs the values of `:authority` in header blocks that arrive in any pieces.
#[derive(Debug, Default)]
pub(super) struct FieldRepair {
    at: At,
}

/// What the next octet is.
#[derive(Debug, Default)]
enum At {
    /// The first octet of a field (RFC 7541 §6).
    #[default]
    Representation,
    /// A further octet of an integer (§5.1).
    Integer {
        of: Of,
        value: u32,
        octets: u8,
    },
    /// The first octet of a literal name (§5.2).
    NameLength,
    Name {
        left: u32,
        huffman: bool,
        seen: u8,
        same: bool,
    },
    /// The first octet of a value.
    ValueLength {
        authority: bool,
    },
    /// A value that is of no concern.
    OtherValue {
        left: u32,
    },
    RawValue {
        left: u32,
        colon: bool,
    },
    HuffmanValue {
        left: u32,
        code: HuffmanRepair,
    },
}

/// What an integer says.
#[derive(Clone, Copy, Debug)]
enum Of {
    /// An indexed field, or a change of the table's size: nothing follows.
    Whole,
    /// The index of a literal field's name; zero: the name follows.
    NameIndex,
    NameLength {
        huffman: bool,
    },
    ValueLength {
        huffman: bool,
        authority: bool,
    },
}

impl FieldRepair {
    /// True between fields.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.at, At::Representation)
    }

    /// Repairs the next octets of a header block.
    pub(super) fn repair(&mut self, octets: &mut [u8]) -> Result<(), Lost> {
        octets.iter_mut().try_for_each(|octet| self.step(octet))
    }

    fn step(&mut self, octet: &mut u8) -> Result<(), Lost> {
        match &mut self.at {
            At::Representation => {
                let (of, bits) = match *octet {
                    0x80.. => (Of::Whole, 7),
                    0x40.. => (Of::NameIndex, 6),
                    0x20.. => (Of::Whole, 5),
                    _ => (Of::NameIndex, 4),
                };
                self.integer(of, *octet, bits)
            }
            At::NameLength => {
                let huffman = *octet & 0x80 != 0;
                self.integer(Of::NameLength { huffman }, *octet, 7)
            }
            At::ValueLength { authority } => {
                let (huffman, authority) = (*octet & 0x80 != 0, *authority);
                self.integer(Of::ValueLength { huffman, authority }, *octet, 7)
            }
            At::Integer { of, value, octets } => {
                // Five octets are enough for every length and index that h2 accepts.
                if *octets == 5 {
                    return Err(Lost);
                }
                let more = u32::from(*octet & 0x7f)
                    .checked_shl(7 * u32::from(*octets))
                    .filter(|more| more >> (7 * u32::from(*octets)) == u32::from(*octet & 0x7f));
                let sum = more.and_then(|more| value.checked_add(more)).ok_or(Lost)?;
                let of = *of;
                if *octet & 0x80 == 0 {
                    self.at = after(of, sum);
                } else {
                    self.at = At::Integer {
                        of,
                        value: sum,
                        octets: *octets + 1,
                    };
                }
                Ok(())
            }
            At::Name {
                left,
                huffman,
                seen,
                same,
            } => {
                let name = if *huffman { NAME_HUFFMAN } else { NAME };
                *same &= name.get(usize::from(*seen)) == Some(octet);
                *seen = seen.saturating_add(1);
                *left -= 1;
                if *left == 0 {
                    let authority = *same && usize::from(*seen) == name.len();
                    self.at = At::ValueLength { authority };
                }
                Ok(())
            }
            At::OtherValue { left } => {
                *left -= 1;
                self.end_value_at(0)
            }
            At::RawValue { left, colon } => {
                *octet = allowed(*octet, colon);
                *left -= 1;
                self.end_value_at(0)
            }
            At::HuffmanValue { left, code } => {
                *octet = code.repair(*octet);
                *left -= 1;
                self.end_value_at(0)
            }
        }
    }

    /// Reads the first octet of an integer with a prefix of `bits` bits.
    fn integer(&mut self, of: Of, octet: u8, bits: u32) -> Result<(), Lost> {
        let full = (1_u8 << bits).wrapping_sub(1);
        let value = octet & full;
        self.at = if value == full {
            At::Integer {
                of,
                value: u32::from(value),
                octets: 0,
            }
        } else {
            after(of, u32::from(value))
        };
        Ok(())
    }

    /// Back to the next field once the value has `end` octets left.
    fn end_value_at(&mut self, end: u32) -> Result<(), Lost> {
        if let At::OtherValue { left } | At::RawValue { left, .. } | At::HuffmanValue { left, .. } =
            &self.at
            && *left == end
        {
            self.at = At::Representation;
        }
        Ok(())
    }
}

/// What comes after an integer.
fn after(of: Of, value: u32) -> At {
    match of {
        Of::Whole => At::Representation,
        Of::NameIndex if value == 0 => At::NameLength,
        Of::NameIndex => At::ValueLength {
            authority: value == AUTHORITY,
        },
        // A field without a name: h2 refuses it by itself.
        Of::NameLength { .. } if value == 0 => At::ValueLength { authority: false },
        Of::NameLength { huffman } => At::Name {
            left: value,
            huffman,
            seen: 0,
            same: true,
        },
        Of::ValueLength { .. } if value == 0 => At::Representation,
        Of::ValueLength {
            authority: false, ..
        } => At::OtherValue { left: value },
        Of::ValueLength { huffman: false, .. } => At::RawValue {
            left: value,
            colon: false,
        },
        Of::ValueLength { huffman: true, .. } => At::HuffmanValue {
            left: value,
            code: HuffmanRepair::default(),
        },
    }
}

/// The octet itself where an authority may hold it (RFC 3986 §3.2), else `-`. Only the first colon stays.
fn allowed(octet: u8, colon: &mut bool) -> u8 {
    match octet {
        b':' if !*colon => {
            *colon = true;
            octet
        }
        b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+'
        | b',' | b';' | b'=' => octet,
        _ if octet.is_ascii_alphanumeric() => octet,
        _ => b'-',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `block` becomes `expected`, in one piece and octet by octet.
    fn check(block: &[u8], expected: &[u8]) {
        let mut whole = block.to_vec();
        let mut repair = FieldRepair::default();
        repair.repair(&mut whole).unwrap();
        assert!(repair.is_complete());
        assert_eq!(whole, expected);
        let mut octets = block.to_vec();
        let mut repair = FieldRepair::default();
        for octet in &mut octets {
            repair.repair(std::slice::from_mut(octet)).unwrap();
        }
        assert_eq!(octets, expected);
    }

    #[test]
    fn every_form_of_the_name_is_known() {
        // Indexed name in the three literal forms, then the name in full, then in Huffman code.
        for first in [0x41, 0x01, 0x11] {
            check(&[first, 3, b'a', b'%', b'b'], &[first, 3, b'a', b'-', b'b']);
        }
        check(b"\x40\x0a:authority\x02/:", b"\x40\x0a:authority\x02-:");
        let mut huffman = vec![0x10, 0x88];
        huffman.extend(NAME_HUFFMAN);
        let (mut sent, mut clean) = (huffman.clone(), huffman);
        sent.extend(b"\x01%");
        clean.extend(b"\x01-");
        check(&sent, &clean);
    }

    #[test]
    fn other_fields_and_like_names_are_left_alone() {
        for block in [
            &b"\x04\x05/a%2F"[..],
            b"\x40\x0b:authority2\x01%",
            b"\x40\x09:authorit\x01%",
            b"\x40\x0a:Authority\x01%",
            b"\x00\x01x\x00\x82\x3f\xe1\x1f\x86",
        ] {
            check(block, block);
        }
    }

    #[test]
    fn only_the_first_colon_stays() {
        check(b"\x41\x07a:b:c@/", b"\x41\x07a:b-c--");
    }

    #[test]
    fn long_values_have_long_lengths() {
        let mut sent = vec![0x41, 0x7f, 0x81, 0x01];
        sent.extend([b'%'; 256]);
        let mut clean = vec![0x41, 0x7f, 0x81, 0x01];
        clean.extend([b'-'; 256]);
        check(&sent, &clean);
    }

    #[test]
    fn endless_integers_are_given_up() {
        for block in [
            &[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80][..],
            &[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0x7f],
        ] {
            assert_eq!(
                FieldRepair::default().repair(&mut block.to_vec()),
                Err(Lost)
            );
        }
    }
}
