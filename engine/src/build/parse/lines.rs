//! A Dockerfile's text into logical lines: directives, comments,
//! continuations, here-documents.

use super::ParseError;

/// A document that stands in the lines below an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heredoc {
    pub(crate) name: String,
    /// The name was not quoted: variables in it are expanded.
    pub(crate) expand: bool,
    /// `<<-`: leading tabs are no part of it.
    pub(crate) chomp: bool,
    pub(crate) text: String,
}

impl Heredoc {
    /// What it says, without the tabs that `<<-` takes away.
    pub(crate) fn content(&self) -> String {
        if !self.chomp {
            return self.text.clone();
        }
        self.text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// One instruction's line, put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Of its first line in the file, counted from 1.
    pub(super) number: usize,
    pub(super) text: String,
    pub(super) heredocs: Vec<Heredoc>,
}

/// The file as lines.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) escape: char,
    pub(super) lines: Vec<Line>,
    pub(super) warnings: Vec<String>,
}

const KNOWN_DIRECTIVES: [&str; 3] = ["escape", "syntax", "check"];

/// # Errors
/// A directive that is given twice or wrongly; a here-document without an end.
pub(super) fn lines(text: &str) -> Result<Lines, ParseError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let escape = directives(text)?;
    let mut found = Lines { escape, lines: Vec::new(), warnings: Vec::new() };
    let mut physical = text.split_inclusive('\n').enumerate();
    while let Some((at, first)) = physical.next() {
        let first = bare(first).trim_start();
        if first.starts_with('#') {
            continue;
        }
        let (mut line, mut goes_on) = continued(first, escape);
        if !goes_on && line.is_empty() {
            continue;
        }
        let mut skipped_empty = false;
        while goes_on {
            let Some((_, next)) = physical.next() else { break };
            let next = bare(next);
            if next.trim_start().starts_with('#') {
                continue;
            }
            if next.trim().is_empty() {
                skipped_empty = true;
                continue;
            }
            let (part, more) = continued(next, escape);
            line.push_str(&part);
            goes_on = more;
        }
        if skipped_empty {
            found
                .warnings
                .push(format!("[WARNING]: Empty continuation line found in:\n    {line}"));
        }
        let heredocs = take_heredocs(&line, at + 1, &mut physical)?;
        found.lines.push(Line { number: at + 1, text: line.trim().to_owned(), heredocs });
    }
    if found.lines.is_empty() {
        return Err(ParseError::file("file with no instructions"));
    }
    Ok(found)
}

fn bare(line: &str) -> &str {
    line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line))
}

/// `# escape=`, before anything else; other directives are for others.
fn directives(text: &str) -> Result<char, ParseError> {
    let mut escape = None;
    let mut seen = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix('#') else { break };
        let Some((name, value)) = comment.split_once('=') else { break };
        let name = name.trim().to_ascii_lowercase();
        if !KNOWN_DIRECTIVES.contains(&name.as_str()) {
            break;
        }
        if seen.contains(&name) {
            let text = format!("only one {name} parser directive can be used");
            return Err(ParseError::at(at + 1, text));
        }
        if name == "escape" {
            escape = Some(match value.trim() {
                "\\" => '\\',
                "`" => '`',
                other => {
                    let text = format!("invalid escape token '{other}' does not match ` or \\");
                    return Err(ParseError::at(at + 1, text));
                }
            });
        }
        seen.push(name);
    }
    Ok(escape.unwrap_or('\\'))
}

/// The line without the escape at its end, and whether it goes on. An escape
/// that is itself escaped is none.
fn continued(line: &str, escape: char) -> (String, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest.to_owned(), true),
        _ => (line.to_owned(), false),
    }
}

/// The here-documents that a line announces, read from the lines below it.
fn take_heredocs(
    line: &str,
    number: usize,
    physical: &mut dyn Iterator<Item = (usize, &str)>,
) -> Result<Vec<Heredoc>, ParseError> {
    let word = line.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    if !matches!(word.as_str(), "add" | "copy" | "run") || !line.contains("<<") {
        return Ok(Vec::new());
    }
    let mut heredocs = Vec::new();
    for mut heredoc in announced(line) {
        let mut ended = false;
        for (_, next) in &mut *physical {
            let end = bare(next);
            let end = if heredoc.chomp { end.trim_start_matches('\t') } else { end };
            if end == heredoc.name {
                ended = true;
                break;
            }
            heredoc.text.push_str(next);
        }
        if !ended {
            return Err(ParseError::at(number, "unterminated heredoc"));
        }
        heredocs.push(heredoc);
    }
    Ok(heredocs)
}

/// Every `<<NAME` outside of quotes, in order.
fn announced(line: &str) -> Vec<Heredoc> {
    words_of_shell(line).iter().filter_map(|word| heredoc(word)).collect()
}

/// `<<NAME`, `<<-NAME`, `<<"NAME"`, with a descriptor's number before it or
/// not. `<<<` is something else.
pub(super) fn heredoc(word: &str) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (rest, chomp) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
    if rest.starts_with('<') {
        return None;
    }
    let quoted = ['"', '\'']
        .into_iter()
        .find_map(|quote| rest.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)));
    let name = quoted.unwrap_or(rest);
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    let usable = !name.is_empty() && plain;
    usable.then(|| Heredoc {
        name: name.to_owned(),
        expand: quoted.is_none(),
        chomp,
        text: String::new(),
    })
}

/// Words as a shell splits them; quotes stay in the words.
fn words_of_shell(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        let word = words.last_mut().expect("there is one from the start");
        match (quote, letter) {
            (None, ' ' | '\t') => words.push(String::new()),
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.push(letter);
            }
            (Some(open), _) if open == letter => {
                quote = None;
                word.push(letter);
            }
            (Some('"') | None, '\\') => {
                word.push(letter);
                word.extend(letters.next());
            }
            // `cat <<EOF>file;`: an operator ends the name.
            (None, '>' | '|' | ';' | '&' | ')') => words.push(String::new()),
            (None, '<') if !word.is_empty() && !word.ends_with('<') && !is_number(word) => {
                words.push("<".to_owned());
            }
            _ => word.push(letter),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn is_number(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        lines(text).unwrap().lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn lines_go_on_after_an_escape_and_comments_between_are_skipped() {
        assert_eq!(texts("RUN a \\\n  # no\n\n  && b\nCMD x\n"), ["RUN a   && b", "CMD x"]);
        assert_eq!(texts("# c\n\n  RUN a\\\\\nCMD b"), ["RUN a\\\\", "CMD b"]);
        assert_eq!(texts("# escape=`\nRUN a `\nb \\\n"), ["RUN a b \\"]);
        assert_eq!(texts("\u{feff}RUN a\r\nRUN b\\\r\nc"), ["RUN a", "RUN bc"]);
    }

    #[test]
    fn directives_end_at_the_first_line_that_is_none() {
        assert_eq!(lines("# hello\n# escape=`\nRUN a").unwrap().escape, '\\');
        let twice = lines("# escape=`\n# escape=`\nRUN a").unwrap_err();
        assert!(twice.to_string().ends_with("only one escape parser directive can be used"));
        assert!(lines("# escape=x\nRUN a").is_err());
    }

    #[test]
    fn heredocs_are_taken_from_the_lines_below() {
        let text = "RUN cat <<A <<-'B' >x\n$a\nA\n\tb\n\tB\nCMD x";
        let found = lines(text).unwrap().lines;
        assert_eq!(found.len(), 2);
        let [a, b] = found[0].heredocs.as_slice() else { panic!("{found:?}") };
        assert_eq!((a.text.as_str(), a.expand), ("$a\n", true));
        assert_eq!((b.content().as_str(), b.expand), ("b\n", false));
        assert!(lines("RUN <<E\nx\n").unwrap_err().to_string().contains("unterminated heredoc"));
        assert_eq!(lines("RUN cat <<<x \"<<E\"\nCMD a").unwrap().lines.len(), 2);
        let one = lines("RUN <<EOF>/x cat\ny\nEOF").unwrap().lines;
        assert_eq!(one[0].heredocs[0].name, "EOF");
    }

    #[test]
    fn an_empty_file_is_refused() {
        for text in ["", "\n\n", "# c\n"] {
            assert_eq!(lines(text).unwrap_err().to_string(), "file with no instructions");
        }
    }
}
