//! Variables in a Dockerfile's words: `$x`, `${x:-y}`, `${x#pattern}`, quotes
//! and escapes. Pure.

/// What a name stands for; none if it is not set.
pub(crate) type Look<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// One word, expanded, its quotes and escapes taken away.
///
/// # Errors
/// Docker's words for what is not closed, or not known.
pub(crate) fn word(text: &str, escape: char, look: &Look<'_>) -> Result<String, String> {
    let mut reader = Reader::new(text, escape, look);
    reader.until(None, false)?;
    Ok(reader.words.concat())
}

/// The same where one word may become several (`EXPOSE`): blanks that come out
/// of a variable, or stand outside of quotes, part words.
///
/// # Errors
/// As [`word`].
pub(crate) fn words(text: &str, escape: char, look: &Look<'_>) -> Result<Vec<String>, String> {
    let mut reader = Reader::new(text, escape, look);
    reader.split = true;
    reader.until(None, false)?;
    Ok(reader.words.into_iter().filter(|word| !word.is_empty()).collect())
}

/// How deep a default may stand in a default: each level is a call.
const DEEPEST: usize = 64;

struct Reader<'a> {
    letters: std::iter::Peekable<std::str::Chars<'a>>,
    escape: char,
    look: &'a Look<'a>,
    split: bool,
    words: Vec<String>,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, escape: char, look: &'a Look<'a>) -> Self {
        let letters = text.chars().peekable();
        Self { letters, escape, look, split: false, words: vec![String::new()], depth: 0 }
    }

    fn push(&mut self, letter: char) {
        self.push_text(letter.encode_utf8(&mut [0; 4]));
    }

    fn push_text(&mut self, text: &str) {
        self.words.last_mut().expect("there is one from the start").push_str(text);
    }

    /// Text whose blanks part words, if words are asked for.
    fn push_loose(&mut self, text: &str) {
        for letter in text.chars() {
            if self.split && letter.is_whitespace() {
                self.words.push(String::new());
            } else {
                self.push(letter);
            }
        }
    }

    /// Reads up to `stop`, which is taken too. `raw`: escapes stay.
    fn until(&mut self, stop: Option<char>, raw: bool) -> Result<(), String> {
        while let Some(letter) = self.letters.next() {
            if Some(letter) == stop {
                return Ok(());
            }
            match letter {
                '\'' => self.single()?,
                '"' => self.double()?,
                '$' => {
                    let value = self.dollar()?;
                    self.push_loose(&value);
                }
                _ if letter == self.escape => {
                    if raw {
                        self.push(letter);
                    }
                    if let Some(next) = self.letters.next() {
                        self.push(next);
                    }
                }
                _ => self.push_loose(letter.encode_utf8(&mut [0; 4])),
            }
        }
        match stop {
            None => Ok(()),
            Some(stop) => {
                Err(format!("unexpected end of statement while looking for matching {stop}"))
            }
        }
    }

    fn single(&mut self) -> Result<(), String> {
        loop {
            match self.letters.next() {
                None => {
                    return Err("unexpected end of statement while looking for matching \
                                single-quote"
                        .to_owned());
                }
                Some('\'') => return Ok(()),
                Some(letter) => self.push(letter),
            }
        }
    }

    fn double(&mut self) -> Result<(), String> {
        loop {
            match self.letters.next() {
                None => {
                    return Err("unexpected end of statement while looking for matching \
                                double-quote"
                        .to_owned());
                }
                Some('"') => return Ok(()),
                Some('$') => {
                    let value = self.dollar()?;
                    self.push_text(&value);
                }
                Some(letter) if letter == self.escape => match self.letters.peek().copied() {
                    None => {}
                    Some(next) if next == '"' || next == '$' || next == self.escape => {
                        self.letters.next();
                        self.push(next);
                    }
                    Some(_) => self.push(letter),
                },
                Some(letter) => self.push(letter),
            }
        }
    }

    /// After a `$`.
    fn dollar(&mut self) -> Result<String, String> {
        if self.letters.peek() != Some(&'{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok((self.look)(&name).unwrap_or_default());
        }
        self.letters.next();
        match self.letters.peek() {
            None => return Err("syntax error: missing '}'".to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        let value = (self.look)(&name);
        let Some(mut letter) = self.letters.next() else {
            return Err("syntax error: missing '}'".to_owned());
        };
        if letter == '}' {
            return Ok(value.unwrap_or_default());
        }
        let mut modifier = letter.to_string();
        let colon = letter == ':';
        if colon {
            letter = self.letters.next().ok_or("syntax error: missing '}'")?;
            modifier.push(letter);
        }
        match letter {
            '-' | '+' | '?' => {
                let word = self.inner('}', false)?;
                chosen(&name, letter, value, (word, colon))
            }
            '#' | '%' if !colon => {
                let word = self.inner('}', true)?;
                Ok(trimmed(letter, &word, &value.unwrap_or_default(), self.escape))
            }
            '/' if !colon => {
                let all = self.letters.next_if_eq(&'/').is_some();
                let pattern = self.inner('/', true)?;
                let new = self.inner('}', true)?;
                let pattern = Pattern::parse(&pattern, self.escape);
                Ok(pattern.replace(&value.unwrap_or_default(), &new, all))
            }
            _ => Err(format!("unsupported modifier ({modifier}) in substitution")),
        }
    }

    /// A word inside of `${…}`, expanded by itself.
    fn inner(&mut self, stop: char, raw: bool) -> Result<String, String> {
        if self.depth == DEEPEST {
            return Err("syntax error: substitutions are nested too deeply".to_owned());
        }
        self.depth += 1;
        let outer = std::mem::replace(&mut self.words, vec![String::new()]);
        let split = std::mem::replace(&mut self.split, false);
        let read = self.until(Some(stop), raw);
        self.split = split;
        let inner = std::mem::replace(&mut self.words, outer);
        self.depth -= 1;
        match read {
            Ok(()) => Ok(inner.concat()),
            Err(_) if self.letters.peek().is_none() => Err("syntax error: missing '}'".to_owned()),
            Err(error) => Err(error),
        }
    }

    fn name(&mut self) -> String {
        let special = |c: &char| matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!' | '0');
        if let Some(letter) = self.letters.next_if(special) {
            return letter.to_string();
        }
        let mut name = String::new();
        let digits = self.letters.peek().is_some_and(char::is_ascii_digit);
        let fits = |c: &char| {
            if digits { c.is_ascii_digit() } else { c.is_ascii_alphanumeric() || *c == '_' }
        };
        while let Some(letter) = self.letters.next_if(fits) {
            name.push(letter);
        }
        name
    }
}

/// `:-`, `-`, `:+`, `+`, `:?`, `?`.
fn chosen(
    name: &str,
    modifier: char,
    value: Option<String>,
    (word, null_is_unset): (String, bool),
) -> Result<String, String> {
    let unset = value.is_none();
    let counts = value.filter(|value| !null_is_unset || !value.is_empty());
    match (modifier, counts) {
        ('-', None) => Ok(word),
        ('-', Some(value)) => Ok(value),
        ('+', None) => Ok(String::new()),
        ('+', Some(_)) => Ok(word),
        (_, Some(value)) => Ok(value),
        (_, None) if !word.is_empty() => Err(format!("{name}: {word}")),
        (_, None) if unset => Err(format!("{name}: is not allowed to be unset")),
        (_, None) => Err(format!("{name}: is not allowed to be empty")),
    }
}

/// `#`, `##`, `%`, `%%`: what is left without the beginning or end that fits.
fn trimmed(modifier: char, word: &str, value: &str, escape: char) -> String {
    let (word, longest) = word.strip_prefix(modifier).map_or((word, false), |rest| (rest, true));
    let pattern = Pattern::parse(word, escape);
    let mut cuts: Vec<usize> =
        value.char_indices().map(|(at, _)| at).chain([value.len()]).collect();
    // The shortest match first: from the front for `#`, from the back for `%`.
    if (modifier == '%') != longest {
        cuts.reverse();
    }
    for cut in cuts {
        let (head, tail) = value.split_at(cut);
        if modifier == '#' && pattern.fits(head) {
            return tail.to_owned();
        }
        if modifier == '%' && pattern.fits(tail) {
            return head.to_owned();
        }
    }
    value.to_owned()
}

/// `*` and `?`, and letters that are themselves.
struct Pattern(Vec<Piece>);

#[derive(PartialEq)]
enum Piece {
    Any,
    One,
    Letter(char),
}

impl Pattern {
    fn parse(text: &str, escape: char) -> Self {
        let mut pieces = Vec::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            pieces.push(match letter {
                '*' => Piece::Any,
                '?' => Piece::One,
                _ if letter == escape => Piece::Letter(letters.next().unwrap_or(letter)),
                _ => Piece::Letter(letter),
            });
        }
        Self(pieces)
    }

    /// Goes back to the last star only, so that no pattern takes long.
    fn fits(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut p, mut t) = (0, 0);
        let mut star = None;
        while t < text.len() {
            match self.0.get(p) {
                Some(Piece::Any) => {
                    star = Some((p, t));
                    p += 1;
                }
                Some(Piece::One) => (p, t) = (p + 1, t + 1),
                Some(Piece::Letter(letter)) if *letter == text[t] => (p, t) = (p + 1, t + 1),
                _ => match star {
                    Some((at, from)) => {
                        star = Some((at, from + 1));
                        (p, t) = (at + 1, from + 1);
                    }
                    None => return false,
                },
            }
        }
        self.0.get(p..).unwrap_or_default().iter().all(|piece| *piece == Piece::Any)
    }

    /// Replaces the longest matches, from the left; the first one or all.
    fn replace(&self, value: &str, new: &str, all: bool) -> String {
        let mut result = String::new();
        let mut rest = value;
        while !rest.is_empty() {
            let ends = rest.char_indices().map(|(at, _)| at).skip(1).chain([rest.len()]);
            let ends: Vec<usize> = ends.collect();
            let found = ends
                .iter()
                .rev()
                .find(|end| rest.split_at_checked(**end).is_some_and(|(head, _)| self.fits(head)));
            match (found, rest.chars().next()) {
                (Some(end), _) => {
                    result.push_str(new);
                    rest = rest.get(*end..).unwrap_or_default();
                    if !all {
                        break;
                    }
                }
                (None, Some(letter)) => {
                    result.push(letter);
                    rest = rest.get(letter.len_utf8()..).unwrap_or_default();
                }
                (None, None) => break,
            }
        }
        result.push_str(rest);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn look(name: &str) -> Option<String> {
        match name {
            "x" => Some("value".to_owned()),
            "path" => Some("/a/b/a.tar.gz".to_owned()),
            "null" => Some(String::new()),
            "two" => Some("80 443".to_owned()),
            _ => None,
        }
    }

    fn of(text: &str) -> String {
        word(text, '\\', &look).unwrap_or_else(|error| format!("! {error}"))
    }

    #[test]
    fn variables_are_expanded_as_docker_does() {
        for (text, expected) in [
            ("$x", "value"),
            ("${x}y$", "valuey$"),
            ("\\$x '$x' \"$x\"", "$x $x value"),
            ("${none:-d$x}", "dvalue"),
            ("${null:-d}", "d"),
            ("${null-d}", ""),
            ("${x:+set}", "set"),
            ("${null:+set}|${null+set}", "|set"),
            ("${path#*/}", "a/b/a.tar.gz"),
            ("${path##*/}", "a.tar.gz"),
            ("${path%.*}", "/a/b/a.tar"),
            ("${path%%.*}", "/a/b/a"),
            ("${path/a/X}", "/X/b/a.tar.gz"),
            ("${path//a/X}", "/X/b/X.tXr.gz"),
            ("\"a\\b\\\"c\"", "a\\b\"c"),
            ("'a\\b'", "a\\b"),
            ("a\\", "a"),
            ("${x?}", "value"),
            ("${none?gone}", "! none: gone"),
            ("${none:?}", "! none: is not allowed to be unset"),
            ("${null:?}", "! null: is not allowed to be empty"),
            ("${x", "! syntax error: missing '}'"),
            ("${}", "! syntax error: bad substitution"),
            ("${x:-a", "! syntax error: missing '}'"),
            ("${x:#a}", "! unsupported modifier (:#) in substitution"),
            ("${x!a}", "! unsupported modifier (!) in substitution"),
            ("'a", "! unexpected end of statement while looking for matching single-quote"),
            ("\"a", "! unexpected end of statement while looking for matching double-quote"),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }

    #[test]
    fn one_word_becomes_several_where_a_variable_has_blanks() {
        assert_eq!(words("$two/tcp 1", '\\', &look).unwrap(), ["80", "443/tcp", "1"]);
        assert_eq!(words("\"$two\"", '\\', &look).unwrap(), ["80 443"]);
        assert_eq!(words("$none", '\\', &look).unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_nested_without_end_is_refused() {
        let deep = "${n:-".repeat(10_000);
        assert!(of(&deep).starts_with("! syntax error"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_run_long(text in "[$x{}:#%/*?\\\\'\" a-]{0,60}") {
            let _done = of(&text);
        }

        #[test]
        fn a_single_quoted_text_is_itself(text in "[^']{0,40}") {
            prop_assert_eq!(of(&format!("'{text}'")), text);
        }
    }
}
