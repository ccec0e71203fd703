//! Overwrites, bit by bit, what no authority may hold in a value that is in HPACK's Huffman code.
//!
//! The code (RFC 7541 appendix B) is canonical: of each length, the codes are consecutive numbers. So
//! the end of a symbol is found by comparing with one limit per length, without the table. Each
//! offending symbol has a neighbour of the same length that is allowed and differs in one bit:
//! space `010100` and `%` `010101` become `-` `010110` and `.` `010111`; `/` `011000` becomes `3`
//! `011001`; a second `:` `1011100` becomes `B` `1011101`. Other offending symbols have long codes
//! and no such neighbour; no client is known to send them, and `h2` refuses them.

/// How many symbols have a code of 5, 6, 7, … 30 bits.
const SYMBOLS: [u32; 26] = [
    10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4,
];

/// The first number of each length that is no code of that length but begins a longer one.
const LIMITS: [u32; 26] = limits();

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler: out of range would not build"
)]
const fn limits() -> [u32; 26] {
    let mut limits = [0; 26];
    let mut next = 0;
    let mut length = 0;
    while length < SYMBOLS.len() {
        next += SYMBOLS[length];
        limits[length] = next;
        next <<= 1;
        length += 1;
    }
    limits
}

/// The repair of one value; starts anew with each.
#[derive(Debug, Default)]
pub(super) struct HuffmanRepair {
    /// The bits of the symbol that is being read.
    code: u32,
    bits: u8,
    colon: bool,
}

impl HuffmanRepair {
    /// Repairs the next octet of the value.
    pub(super) fn repair(&mut self, octet: u8) -> u8 {
        (0..8)
            .rev()
            .fold(0, |out, bit| out << 1 | self.step(octet >> bit & 1))
    }

    fn step(&mut self, bit: u8) -> u8 {
        let bit = match (self.bits, self.code) {
            // ` ` `%` `-` `.`: the fifth bit decides.
            (4, 0b0101) => 1,
            // `/` and `3`.
            (5, 0b01100) => 1,
            // `:` and `B`.
            (6, 0b10_1110) if self.colon => 1,
            (6, 0b10_1110) if bit == 0 => {
                self.colon = true;
                bit
            }
            _ => bit,
        };
        self.code = self.code << 1 | u32::from(bit);
        self.bits += 1;
        let limit = self
            .bits
            .checked_sub(5)
            .and_then(|length| LIMITS.get(usize::from(length)));
        // Past 30 bits there is no code: whatever it is, h2 refuses it.
        if self.bits >= 30 || limit.is_some_and(|limit| self.code < *limit) {
            self.code = 0;
            self.bits = 0;
        }
        bit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes of RFC 7541 appendix B that the tests need.
    fn code(symbol: char) -> &'static str {
        match symbol {
            ' ' => "010100",
            '%' => "010101",
            '-' => "010110",
            '.' => "010111",
            '/' => "011000",
            '2' => "00010",
            '3' => "011001",
            ':' => "1011100",
            'A' => "100001",
            'B' => "1011101",
            'F' => "1100011",
            'a' => "00011",
            'c' => "00100",
            'k' => "1110101",
            'm' => "101001",
            'o' => "00111",
            'p' => "101011",
            's' => "01000",
            't' => "01001",
            '@' => "1111111111010",
            '\\' => "1111111111111110000",
            '~' => "1111111111101",
            _ => panic!("{symbol}"),
        }
    }

    fn encode(text: &str) -> Vec<u8> {
        let mut bits: String = text.chars().map(code).collect();
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        (0..bits.len() / 8)
            .map(|octet| u8::from_str_radix(&bits[octet * 8..octet * 8 + 8], 2).unwrap())
            .collect()
    }

    fn check(sent: &str, expected: &str) {
        let mut repair = HuffmanRepair::default();
        let out: Vec<u8> = encode(sent).iter().map(|o| repair.repair(*o)).collect();
        assert_eq!(out, encode(expected), "{sent}");
    }

    #[test]
    fn offending_symbols_become_their_neighbours() {
        check("tmp%2Ftmp%2Fa.sock", "tmp.2Ftmp.2Fa.sock");
        check("/tmp/a.sock", "3tmp3a.sock");
        check("a 2", "a-2");
        check("a:2:3:", "a:2B3B");
    }

    #[test]
    fn long_codes_do_not_lose_the_place() {
        check("~@\\/~%@:A:", "~@\\3~.@:AB");
    }

    #[test]
    fn what_is_allowed_stays() {
        for text in ["", "a", "mosca-pt.a:2", "A-B.F~", "33332222"] {
            check(text, text);
        }
    }

    #[test]
    fn the_code_is_complete() {
        assert_eq!(SYMBOLS.iter().sum::<u32>(), 257, "256 octets and the end");
        // EOS is thirty ones, the last code of all.
        assert_eq!(LIMITS[25], 1 << 30);
    }
}
