//! Detach keys: what a user types to leave a terminal without ending it.

/// ctrl-p, ctrl-q.
const DEFAULT: [u8; 2] = [0x10, 0x11];

/// A sequence of bytes, in Docker's syntax `ctrl-p,ctrl-q` or `a,b,c`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DetachKeys(Vec<u8>);

/// The text is no such sequence.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid detach keys ({0}) provided")]
pub(super) struct BadKeys(String);

impl DetachKeys {
    /// Empty text: the default.
    pub(super) fn parse(text: &str) -> Result<Self, BadKeys> {
        if text.is_empty() {
            return Ok(Self(DEFAULT.to_vec()));
        }
        let key = |word: &str| key(word).ok_or_else(|| BadKeys(text.to_owned()));
        text.split(',').map(key).collect::<Result<_, _>>().map(Self)
    }
}

/// moby/term's `ToBytes`.
fn key(word: &str) -> Option<u8> {
    if let [single] = word.as_bytes() {
        return single.is_ascii().then_some(*single);
    }
    let control = word.strip_prefix("ctrl-")?;
    let [letter] = control.as_bytes() else { return None };
    match letter {
        b'a'..=b'z' => Some(letter - b'a' + 1),
        b'@' => Some(0),
        b'[' => Some(27),
        b'\\' => Some(28),
        b']' => Some(29),
        b'^' => Some(30),
        b'_' => Some(31),
        _ => None,
    }
}

/// Watches input for the keys. What may become the sequence is held back.
#[derive(Debug)]
pub(super) struct Escape {
    keys: DetachKeys,
    matched: usize,
}

/// What to do with a piece of input.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Passed {
    /// For the container.
    pub(super) bytes: Vec<u8>,
    /// The user leaves after that.
    pub(super) detached: bool,
}

impl Escape {
    pub(super) fn new(keys: DetachKeys) -> Self {
        Self { keys, matched: 0 }
    }

    /// What of `input` goes on to the container.
    pub(super) fn pass(&mut self, input: &[u8]) -> Passed {
        let keys = &self.keys.0;
        let mut bytes = Vec::with_capacity(input.len() + keys.len());
        for &byte in input {
            if byte == keys[self.matched] {
                self.matched += 1;
                if self.matched == keys.len() {
                    return Passed { bytes, detached: true };
                }
                continue;
            }
            bytes.extend_from_slice(&keys[..self.matched]);
            self.matched = usize::from(byte == keys[0]);
            if self.matched == 1 && keys.len() == 1 {
                return Passed { bytes, detached: true };
            }
            if self.matched == 0 {
                bytes.push(byte);
            }
        }
        Passed { bytes, detached: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escape(keys: &str) -> Escape {
        Escape::new(DetachKeys::parse(keys).unwrap())
    }

    fn passed(bytes: &[u8], detached: bool) -> Passed {
        Passed { bytes: bytes.to_vec(), detached }
    }

    #[test]
    fn the_default_is_ctrl_p_ctrl_q() {
        assert_eq!(escape("").pass(b"ab\x10\x11c"), passed(b"ab", true));
    }

    #[test]
    fn keys_may_come_in_pieces_and_are_given_back_when_they_are_none() {
        let mut escape = escape("ctrl-a,a");
        assert_eq!(escape.pass(b"x\x01"), passed(b"x", false));
        assert_eq!(escape.pass(b"b"), passed(b"\x01b", false));
        assert_eq!(escape.pass(b"\x01\x01"), passed(b"\x01", false));
        assert_eq!(escape.pass(b"a"), passed(b"", true));
    }

    #[test]
    fn words_that_are_no_keys_are_refused_as_docker_does() {
        for text in ["xx", "ctrl-", "ctrl-A", "a,,b", "ctrl-pp", "é"] {
            let said = DetachKeys::parse(text).unwrap_err().to_string();
            assert_eq!(said, format!("Invalid detach keys ({text}) provided"));
        }
        assert_eq!(DetachKeys::parse("ctrl-@,x,ctrl-_").unwrap(), DetachKeys(vec![0, b'x', 31]));
    }
}
