//! The little DER that has to be written by hand.

/// One value: tag, length, content (X.690 §8.1, definite form).
#[must_use]
pub(crate) fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    match u8::try_from(length) {
        Ok(short @ 0..=0x7f) => out.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let significant = bytes.iter().skip_while(|byte| **byte == 0);
            // A usize has at most eight bytes.
            out.push(0x80 | u8::try_from(significant.clone().count()).unwrap_or(8));
            out.extend(significant);
        }
    }
    out.extend_from_slice(content);
    out
}

/// SEQUENCE of values that are DER already.
pub(crate) fn sequence(values: &[Vec<u8>]) -> Vec<u8> {
    value(0x30, &values.concat())
}

/// OBJECT IDENTIFIER with this encoded content.
pub(crate) fn object_id(content: &[u8]) -> Vec<u8> {
    value(0x06, content)
}

/// NULL.
pub(crate) fn null() -> Vec<u8> {
    value(0x05, &[])
}

/// BIT STRING of whole bytes.
pub(crate) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    value(0x03, &[&[0], bytes].concat())
}

/// INTEGER from an unsigned big-endian number.
pub(crate) fn unsigned(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    match number.get(zeros..) {
        None | Some([]) => value(0x02, &[0]),
        // The first bit is the sign.
        Some(rest @ [0x80..=0xff, ..]) => value(0x02, &[&[0], rest].concat()),
        Some(rest) => value(0x02, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_shortest_form() {
        for (length, head) in [
            (0, vec![0x30, 0]),
            (127, vec![0x30, 127]),
            (128, vec![0x30, 0x81, 128]),
            (256, vec![0x30, 0x82, 1, 0]),
        ] {
            let encoded = value(0x30, &vec![7; length]);
            assert_eq!(encoded[..head.len()], head);
            assert_eq!(encoded.len(), head.len() + length);
        }
    }

    #[test]
    fn integers_are_positive_and_have_no_leading_zeros() {
        assert_eq!(unsigned(&[]), [2, 1, 0]);
        assert_eq!(unsigned(&[0, 0]), [2, 1, 0]);
        assert_eq!(unsigned(&[0, 0x7f]), [2, 1, 0x7f]);
        assert_eq!(unsigned(&[0x80]), [2, 2, 0, 0x80]);
    }
}
