//! The arguments of one instruction: words, pairs, flags, JSON.

/// Words apart by blanks. Quotes keep blanks, escapes keep quotes; both stay
/// in the words, for expansion takes them away.
pub(super) fn words(rest: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut inside = false;
    let mut letters = rest.chars();
    while let Some(letter) = letters.next() {
        if !inside && letter.is_whitespace() {
            continue;
        }
        inside = true;
        match quote {
            None if letter.is_whitespace() => {
                words.push(std::mem::take(&mut word));
                inside = false;
                continue;
            }
            None if matches!(letter, '\'' | '"') => quote = Some(letter),
            Some(open) if letter == open => quote = None,
            _ => {}
        }
        if letter == escape && quote != Some('\'') {
            // At the end of the line it is nothing.
            let Some(next) = letters.next() else { continue };
            word.push(letter);
            word.push(next);
            continue;
        }
        word.push(letter);
    }
    if inside {
        words.push(word);
    }
    words
}

/// `--name=value` words before the arguments, and what is left. Quotes and
/// escapes in a flag are taken away.
pub(super) fn flags(rest: &str, escape: char) -> (Vec<String>, String) {
    let mut flags = Vec::new();
    let mut rest = rest.trim_start();
    while rest.starts_with("--") {
        let mut flag = String::new();
        let mut quote = None;
        let mut letters = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, letter)) = letters.next() {
            match quote {
                None if letter.is_whitespace() => {
                    end = at;
                    break;
                }
                None if matches!(letter, '\'' | '"') => quote = Some(letter),
                Some(open) if letter == open => quote = None,
                _ if letter == escape && quote != Some('\'') => {
                    flag.extend(letters.next().map(|(_, next)| next));
                }
                _ => flag.push(letter),
            }
        }
        rest = rest.get(end..).unwrap_or_default().trim_start();
        if flag == "--" {
            break;
        }
        flags.push(flag);
    }
    (flags, rest.to_owned())
}

/// `["a","b"]`: none if it is not JSON at all.
///
/// # Errors
/// It is an array, but not of texts.
pub(super) fn json(rest: &str) -> Result<Option<Vec<String>>, String> {
    if !rest.trim_start().starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(rest) else { return Ok(None) };
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => Ok(text),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => {
            Err("when using JSON array syntax, arrays must be comprised of strings only".to_owned())
        }
    };
    values.into_iter().map(text).collect::<Result<_, _>>().map(Some)
}

/// `a=b c="d e"`, or the old `a b c`.
///
/// # Errors
/// Docker's words for a word that is no pair.
pub(super) fn pairs(rest: &str, name: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let words = words(rest, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let Some((key, value)) = rest.trim().split_once(char::is_whitespace) else {
            return Err(format!("{name} must have two arguments"));
        };
        return Ok(vec![(key.to_owned(), value.trim_start().to_owned())]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => {
            Err(format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value"))
        }
    };
    words.into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_their_quotes_and_escapes() {
        assert_eq!(words("a=\"b c\" d\\ e 'f\\' g", '\\'), ["a=\"b c\"", "d\\ e", "'f\\'", "g"]);
        assert_eq!(words("  ", '\\'), [""; 0]);
        assert_eq!(words("a\\", '\\'), ["a"]);
    }

    #[test]
    fn flags_end_where_the_arguments_begin() {
        let (found, rest) = flags("--from=a --chown=\"1 2\" b --c", '\\');
        assert_eq!(
            (found, rest.as_str()),
            (vec!["--from=a".into(), "--chown=1 2".into()], "b --c")
        );
        assert_eq!(flags("-- --x", '\\').1, "--x");
    }

    #[test]
    fn json_is_json_or_a_line_but_never_numbers() {
        assert_eq!(json("[\"a\", \"b\"]").unwrap().unwrap(), ["a", "b"]);
        assert_eq!(json("[ -f x ] && y").unwrap(), None);
        assert!(json("[1]").is_err());
    }

    #[test]
    fn pairs_are_written_in_two_ways() {
        let two = pairs("a=b c=\"d e\"", "ENV", '\\').unwrap();
        assert_eq!(two, [("a".into(), "b".into()), ("c".into(), "\"d e\"".into())]);
        assert_eq!(pairs("a  b c", "ENV", '\\').unwrap(), [("a".into(), "b c".into())]);
        assert_eq!(pairs("a", "ENV", '\\').unwrap_err(), "ENV must have two arguments");
        assert!(pairs("a=b c", "ENV", '\\').unwrap_err().starts_with("Syntax error"));
    }
}
