//! `.dockerignore`: which files of a context are not there. Pure.

use regex_lite::Regex;

/// Lines of the file, the last that fits decides.
#[derive(Debug, Default)]
pub(crate) struct Ignore(Vec<Pattern>);

#[derive(Debug)]
struct Pattern {
    /// `!`: brings back.
    back: bool,
    fits: Regex,
}

impl Ignore {
    /// # Errors
    /// A pattern that is none.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::trim);
        let lines: Vec<String> = lines.filter(|line| !line.is_empty()).map(str::to_owned).collect();
        Self::of(&lines)
    }

    /// The same from single patterns (`COPY --exclude`).
    ///
    /// # Errors
    /// A pattern that is none.
    pub(crate) fn of(lines: &[String]) -> Result<Self, String> {
        let mut patterns = Vec::new();
        for line in lines {
            let (back, line) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line.as_str()),
            };
            let path = clean(line);
            if path.is_empty() {
                if back {
                    return Err("illegal exclusion pattern: \"!\"".to_owned());
                }
                continue;
            }
            let fits = regex(&path).map_err(|_| format!("syntax error in pattern: {line:?}"))?;
            patterns.push(Pattern { back, fits });
        }
        Ok(Self(patterns))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether that path, relative to the context, is left out: it fits, or a
    /// directory above it does.
    pub(crate) fn hides(&self, path: &str) -> bool {
        let mut hidden = false;
        for pattern in &self.0 {
            // What it would say is so already.
            if hidden != pattern.back {
                continue;
            }
            let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            let mut heads = ends.filter_map(|end| path.get(..end));
            if heads.any(|head| pattern.fits.is_match(head)) {
                hidden = !pattern.back;
            }
        }
        hidden
    }
}

/// Without `.`, doubled slashes, a leading slash; `..` goes up, never out.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// `*`, `?`, `[…]` within a name, `**` over names.
fn regex(pattern: &str) -> Result<Regex, regex_lite::Error> {
    let mut regex = String::from("(?s)^");
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '*' if letters.next_if_eq(&'*').is_some() => {
                let whole = letters.next_if_eq(&'/').is_some();
                regex.push_str(match (whole, letters.peek()) {
                    (_, None) => ".*",
                    (true, Some(_)) => "(.*/)?",
                    (false, Some(_)) => ".*",
                });
            }
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            '[' => {
                regex.push('[');
                while let Some(inner) = letters.next() {
                    match inner {
                        '\\' => regex.extend(['\\'].into_iter().chain(letters.next())),
                        '[' | '&' | '~' => regex.extend(['\\', inner]),
                        _ => regex.push(inner),
                    }
                    if inner == ']' {
                        break;
                    }
                }
            }
            '\\' => {
                let next = letters.next().unwrap_or('\\');
                regex.push_str(&regex_lite::escape(next.encode_utf8(&mut [0; 4])));
            }
            _ => regex.push_str(&regex_lite::escape(letter.encode_utf8(&mut [0; 4]))),
        }
    }
    regex.push('$');
    Regex::new(&regex)
}

/// Go's `filepath.Match` over a whole path: stars stop at slashes.
#[derive(Debug)]
pub(crate) struct Glob(Regex);

impl Glob {
    /// None: there is nothing in it that is not just a letter.
    ///
    /// # Errors
    /// A pattern that is none.
    pub(crate) fn parse(pattern: &str) -> Result<Option<Self>, String> {
        if !pattern.contains(['*', '?', '[']) {
            return Ok(None);
        }
        let single = pattern.replace("**", "*");
        let bad = |_| format!("syntax error in pattern: {pattern:?}");
        regex(&single).map_err(bad).map(|regex| Some(Self(regex)))
    }

    pub(crate) fn fits(&self, path: &str) -> bool {
        self.0.is_match(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hidden(lines: &str, path: &str) -> bool {
        Ignore::parse(lines).unwrap().hides(path)
    }

    #[test]
    fn files_are_hidden_as_docker_hides_them() {
        for (lines, path, expected) in [
            ("a", "a", true),
            ("a", "a/b/c", true),
            ("/a/", "a/b", true),
            ("a", "b/a", false),
            ("*.md", "x.md", true),
            ("*.md", "d/x.md", false),
            ("**/*.md", "d/e/x.md", true),
            ("**/*.md", "x.md", true),
            ("*\n!a", "a", false),
            ("*\n!a/b\na/b/c", "a/b/d", false),
            ("*\n!a/b\na/b/c", "a/b/c", true),
            ("# a\n\n  b  ", "b", true),
            ("a/../b", "b", true),
            ("te?t[0-9]", "test7", true),
            ("a.c", "abc", false),
            ("d/**", "d/x/y", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
        ] {
            assert_eq!(hidden(lines, path), expected, "{lines:?} {path}");
        }
        assert!(Ignore::parse("!").is_err());
        assert!(Ignore::parse("[z-a]").is_err());
    }

    #[test]
    fn a_pattern_stops_at_slashes() {
        let fits = |pattern: &str, path: &str| Glob::parse(pattern).unwrap().unwrap().fits(path);
        assert!(fits("a/*.txt", "a/b.txt"));
        assert!(!fits("*.txt", "a/b.txt"));
        assert!(Glob::parse("a/b").unwrap().is_none());
    }

    proptest! {
        #[test]
        fn no_pattern_makes_it_panic(lines in "[a*?!\\[\\]\\\\/.\n-]{0,30}", path in "[a/.]{0,12}") {
            if let Ok(ignore) = Ignore::parse(&lines) {
                ignore.hides(&path);
            }
        }
    }
}
