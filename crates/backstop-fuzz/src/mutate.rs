//! Makes new inputs of old ones.
//!
//! Texts are changed by character, word, number and bracket, so that most mutants get past the first
//! character of a parser; protobuf by field (`super::wire`); and all of them by byte now and then, for what
//! no structure would make: half a character, half a message.

use crate::random::Random;
use crate::wire;

/// Longest mutant, in bytes. Limits of a mebibyte are for tests of their own.
pub const INPUT_BYTES_MAX: usize = 1 << 16;

/// Numbers at which something ends or begins.
const EDGES: [&str; 22] = [
    "0",
    "-1",
    "1",
    "127",
    "128",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "-2147483648",
    "4294967295",
    "4294967296",
    "9007199254740991",
    "9007199254740992",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e-400",
    "00000000000000000000000000007",
];
/// Characters at which something ends or begins.
const CHARACTERS: [&str; 16] = [
    "\0",
    "\n",
    "\r\n",
    "\t",
    "\u{1a}",
    "\u{7f}",
    "\u{80}",
    "é",
    "\u{feff}",
    "\u{202e}",
    "\u{fffd}",
    "\u{ffff}",
    "😀",
    "\u{10ffff}",
    "\\",
    "\"",
];
const BRACKETS: [(&str, &str); 7] =
    [("(", ")"), ("[", "]"), ("{", "}"), ("\"", "\""), ("${", "}"), ("{\"a\":", "}"), ("- ", "")];

/// What a target's inputs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text of some grammar.
    Text,
    /// An encoded protobuf message.
    Protobuf,
    /// Bytes of no structure.
    Bytes,
}

/// Makes inputs, without end.
#[derive(Debug)]
pub(crate) struct Mutator<'a> {
    kind: Kind,
    corpus: &'a [Vec<u8>],
    words: &'a [&'a str],
    random: Random,
}

impl<'a> Mutator<'a> {
    pub(crate) fn new(kind: Kind, corpus: &'a [Vec<u8>], words: &'a [&'a str], seed: u64) -> Self {
        Self { kind, corpus, words, random: Random::new(seed) }
    }

    /// The next input: one of the corpus, changed a few times.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let mut input = self.random.pick(self.corpus).cloned().unwrap_or_default();
        let changes = 1 + self.random.below(4);
        for _ in 0..changes {
            let by_byte = self.random.one_in(12);
            input = match self.kind {
                Kind::Text if !by_byte => self.text(&input),
                Kind::Protobuf if !by_byte => self.protobuf(&input),
                Kind::Text | Kind::Protobuf | Kind::Bytes => self.bytes(input),
            };
            input.truncate(INPUT_BYTES_MAX);
        }
        input
    }

    fn bytes(&mut self, mut input: Vec<u8>) -> Vec<u8> {
        let at = self.random.below(input.len() + 1);
        match self.random.below(8) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.random.below(8);
                }
            }
            1 => {
                let byte = [0, 1, 0x7f, 0x80, 0xff, b'%', b'0', b' '][self.random.below(8)];
                input.insert(at, byte);
            }
            2 => input.truncate(at),
            3 => {
                let end = (at + 1 + self.random.below(16)).min(input.len());
                input.drain(at.min(end)..end);
            }
            4 => {
                // Again and again.
                let end = (at + 1 + self.random.below(32)).min(input.len());
                let piece = input[at.min(end)..end].repeat(1 + self.random.below(64));
                input.splice(at..at, piece);
            }
            5 => {
                let other = self.random.pick(self.corpus).cloned().unwrap_or_default();
                let from = self.random.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            6 => {
                let number = [0_u64, u64::MAX, 1 << 63, 1 << 31, 1 << 32][self.random.below(5)];
                let width = [2, 4, 8][self.random.below(3)];
                for (place, byte) in input.iter_mut().skip(at).take(width).zip(number.to_le_bytes()) {
                    *place = byte;
                }
            }
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = u8::try_from(self.random.below(256)).unwrap_or(0);
                }
            }
        }
        input
    }

    fn text(&mut self, input: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(input);
        let cuts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let at = self.random.pick(&cuts).copied().unwrap_or(0);
        // A piece of anything from a character to a few words.
        let longest = if self.random.one_in(4) { 64 } else { 8 };
        let length = 1 + self.random.below(longest);
        let end = cuts.iter().copied().filter(|cut| *cut >= at).nth(length).unwrap_or(text.len());
        let (before, piece, after) = (&text[..at], &text[at..end], &text[end..]);
        let put = |new: &str| [before, new, piece, after].concat().into_bytes();
        let instead = |new: &str| [before, new, after].concat().into_bytes();
        match self.random.below(12) {
            0 => instead(""),
            1 => before.as_bytes().to_vec(),
            2 => put(CHARACTERS[self.random.below(CHARACTERS.len())]),
            3 => {
                let edge = EDGES[self.random.below(EDGES.len())];
                self.number(&text, edge)
            }
            4 => {
                let (open, close) = BRACKETS[self.random.below(BRACKETS.len())];
                let levels = if self.random.one_in(3) { 1 + self.random.below(600) } else { 1 };
                instead(&[&open.repeat(levels), piece, &close.repeat(levels)].concat())
            }
            5 => put(&piece.repeat(1 + self.random.below(32))),
            6 => {
                let other = self.random.pick(self.corpus).map(|o| String::from_utf8_lossy(o).into_owned());
                let other = other.unwrap_or_default();
                let from = self.random.below(other.len() + 1);
                let from = (from..=other.len()).find(|at| other.is_char_boundary(*at)).unwrap_or(0);
                let until = (from + self.random.below(64)).min(other.len());
                let until = (until..=other.len()).find(|at| other.is_char_boundary(*at)).unwrap_or(from);
                put(&other[from..until])
            }
            7 => instead(&piece.to_uppercase()),
            8 => {
                // Two neighbours change places.
                let middle = cuts.iter().copied().filter(|cut| *cut > at && *cut < end).nth(length / 2);
                let middle = middle.unwrap_or(end);
                instead(&[&text[middle..end], &text[at..middle]].concat())
            }
            _ => match self.random.pick(self.words).copied() {
                Some(word) if self.random.one_in(2) => instead(word),
                Some(word) => put(word),
                None => put(CHARACTERS[self.random.below(CHARACTERS.len())]),
            },
        }
    }

    /// One of the text's numbers becomes another; a text without any gets one at the end.
    fn number(&mut self, text: &str, new: &str) -> Vec<u8> {
        let mut numbers: Vec<(usize, usize)> = Vec::new();
        for (at, _) in text.match_indices(|c: char| c.is_ascii_digit()) {
            match numbers.last_mut() {
                Some((_, end)) if *end == at => *end += 1,
                _ => numbers.push((at, at + 1)),
            }
        }
        let (from, to) = self.random.pick(&numbers).copied().unwrap_or((text.len(), text.len()));
        [&text[..from], new, &text[to..]].concat().into_bytes()
    }

    fn protobuf(&mut self, input: &[u8]) -> Vec<u8> {
        let Some(mut message) = wire::parse(input) else {
            return self.bytes(input.to_vec());
        };
        let other = self.random.pick(self.corpus).and_then(|other| wire::parse(other)).unwrap_or_default();
        let mut random = Random::new(self.random.number());
        let mut leaf = |bytes: &[u8]| {
            // Strings are mostly text of some grammar, so they are changed as text.
            if std::str::from_utf8(bytes).is_ok() { self.text(bytes) } else { self.bytes(bytes.to_vec()) }
        };
        wire::mutate(&mut message, &other, &mut random, &mut leaf);
        wire::encode(&message)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn mutants_are_bounded_and_reach_far_from_the_corpus() {
        let corpus =
            vec![b"transfer: [1, \"\xe8\xb4\xa6\", {a: 7}]".to_vec(), b"\x0a\x03abc\x10\x07".to_vec()];
        for kind in [Kind::Text, Kind::Protobuf, Kind::Bytes] {
            let mut mutator = Mutator::new(kind, &corpus, &["credit"], 7);
            let all: Vec<Vec<u8>> = (0..20_000).map(|_| mutator.next()).collect();
            assert!(all.iter().all(|input| input.len() <= INPUT_BYTES_MAX));
            let has = |what: &[u8]| all.iter().any(|input| input.windows(what.len()).any(|w| w == what));
            if kind == Kind::Text {
                assert!(has(b"credit") && has(b"9223372036854775807") && has(&b"[".repeat(300)));
            }
            assert!(
                all.iter().any(|input| std::str::from_utf8(input).is_err()),
                "half a character: {kind:?}"
            );
            assert!(all.iter().any(Vec::is_empty), "nothing at all: {kind:?}");
        }
    }
}
