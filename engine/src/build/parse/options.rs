//! `--name=value` of an instruction.

/// What was given, until it is asked for.
#[derive(Debug)]
pub(super) struct Options(Vec<(String, Option<String>)>);

impl Options {
    /// # Errors
    /// One is there twice that may be there once.
    pub(super) fn of(flags: &[String]) -> Result<Self, String> {
        let mut options = Vec::<(String, Option<String>)>::new();
        for flag in flags {
            let bare = flag.strip_prefix("--").unwrap_or(flag);
            let (name, value) = match bare.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (bare, None),
            };
            // Several of these make a list.
            let many = matches!(name, "mount" | "exclude");
            if !many && options.iter().any(|(other, _)| other == name) {
                return Err(format!("Duplicate flag specified: {name}"));
            }
            options.push((name.to_owned(), value));
        }
        Ok(Self(options))
    }

    /// # Errors
    /// It is there, and has no value.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        let Some(at) = self.0.iter().position(|(other, _)| other == name) else { return Ok(None) };
        let (_, value) = self.0.remove(at);
        value.map(Some).ok_or_else(|| format!("Missing a value on flag: {name}"))
    }

    pub(super) fn all(&mut self, name: &str) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        while let Some(value) = self.text(name)? {
            found.push(value);
        }
        Ok(found)
    }

    /// # Errors
    /// Its value is neither true nor false.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, String> {
        let Some(at) = self.0.iter().position(|(other, _)| other == name) else {
            return Ok(false);
        };
        match self.0.remove(at).1.as_deref() {
            None | Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(value) => Err(format!("expecting boolean value for flag {name}, not: {value}")),
        }
    }

    /// # Errors
    /// One was given that nobody asked for.
    pub(super) fn done(self, known: &[&str]) -> Result<(), String> {
        let Some((name, _)) = self.0.first() else { return Ok(()) };
        let near = known.iter().find(|other| near(name, other));
        let hint = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
        Err(format!("unknown flag: --{name}{hint}"))
    }
}

/// Whether one may be a slip of the other: at most two letters differ.
pub(super) fn near(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 2 || a.len() > 32 {
        return false;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()] <= 2
}
