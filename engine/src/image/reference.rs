//! `registry/repository:tag@digest`, exactly as Docker reads it
//! (distribution/reference v0.6: `ParseNormalizedNamed`).

use crate::ids::Digest;
use std::{fmt, str::FromStr};

const DEFAULT_REGISTRY: &str = "docker.io";
const OFFICIAL: &str = "library/";
/// Longest registry and repository together, in bytes.
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;

/// A name of an image, normalised: `busybox` is `docker.io/library/busybox`.
/// Without tag and digest it names a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// The text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadReference {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    #[error("repository name must not be more than {LONGEST_NAME} characters")]
    TooLong,
}

impl Reference {
    /// `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Without the registry: `library/busybox`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Without tag and digest, as users write it: `busybox`.
    #[must_use]
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return format!("{}/{}", self.registry, self.repository);
        }
        match self.repository.strip_prefix(OFFICIAL) {
            // `library/a/b` is not `a/b`: that would read as another repository.
            Some(name) if !name.contains('/') => name.to_owned(),
            // Nor is `docker.io/localhost/b` `localhost/b`.
            _ if split_registry(&self.repository).0 != DEFAULT_REGISTRY => {
                format!("{DEFAULT_REGISTRY}/{}", self.repository)
            }
            _ => self.repository.clone(),
        }
    }

    /// As users write it: `busybox:latest`.
    #[must_use]
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    /// With the tag `latest`, if it has neither tag nor digest.
    #[must_use]
    pub fn or_latest(self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            return self.with_tag("latest".to_owned());
        }
        self
    }

    /// The repository at a digest, without a tag.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Without its digest.
    #[must_use]
    pub fn without_digest(self) -> Self {
        Self { digest: None, ..self }
    }

    /// In that tag of the repository, without a digest.
    ///
    /// # Errors
    /// It is no tag.
    pub fn tagged(&self, tag: &str) -> Result<Self, BadReference> {
        if !is_tag(tag) {
            return Err(BadReference::Format);
        }
        Ok(Self { digest: None, ..self.clone().with_tag(tag.to_owned()) })
    }

    fn with_tag(self, tag: String) -> Self {
        Self { tag: Some(tag), ..self }
    }

    fn suffixed(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(format!("{}/{}", self.registry, self.repository)))
    }
}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(BadReference::LooksLikeId(text.to_owned()));
        }
        let (registry, rest) = split_registry(text);
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| BadReference::Format)?)),
            None => (rest, None),
        };
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (rest, None),
        };
        let official = registry == DEFAULT_REGISTRY && !repository.contains('/');
        let repository = format!("{}{repository}", if official { OFFICIAL } else { "" });
        if repository.chars().any(char::is_uppercase) {
            return Err(BadReference::Uppercase(repository));
        }
        if !is_registry(registry)
            || !repository.split('/').all(is_component)
            || tag.is_some_and(|tag| !is_tag(tag))
        {
            return Err(BadReference::Format);
        }
        if registry.len() + 1 + repository.len() > LONGEST_NAME {
            return Err(BadReference::TooLong);
        }
        let (registry, tag) = (registry.to_owned(), tag.map(str::to_owned));
        Ok(Self { registry, repository, tag, digest })
    }
}

/// The first component is a registry if it has a dot, a colon or a capital, or
/// is `localhost`.
fn split_registry(text: &str) -> (&str, &str) {
    let Some((first, rest)) = text.split_once('/') else {
        return (DEFAULT_REGISTRY, text);
    };
    let registry =
        first.contains(['.', ':']) || first == "localhost" || first.to_lowercase() != first;
    match first {
        "index.docker.io" => (DEFAULT_REGISTRY, rest),
        _ if registry => (first, rest),
        _ => (DEFAULT_REGISTRY, text),
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        // Inside of an address's brackets, colons are its own.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match address {
        Some(v6) => !v6.is_empty() && v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => host.split('.').all(is_label),
    };
    host && port
}

fn is_label(text: &str) -> bool {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    !text.is_empty() && text.bytes().all(inside) && !text.starts_with('-') && !text.ends_with('-')
}

/// Runs of `[a-z0-9]+` with one of `.`, `_`, `__` or any number of `-` between.
fn is_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut separators = text.split(alphanumeric).filter(|between| !between.is_empty());
    text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
        && separators.all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

/// `[\w][\w.-]{0,127}`
fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first = text.bytes().next().is_some_and(word);
    first && text.len() <= LONGEST_TAG && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_normalised_as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, whole, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("library/busybox", "docker.io/library/busybox", "busybox"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            ("index.docker.io/a/b", "docker.io/a/b", "a/b"),
            ("a/b/c:x", "docker.io/a/b/c:x", "a/b/c:x"),
            ("localhost/x", "localhost/x", "localhost/x"),
            ("localhost:5000/x", "localhost:5000/x", "localhost:5000/x"),
            ("[::1]:5000/x:t", "[::1]:5000/x:t", "[::1]:5000/x:t"),
            ("Upper/x", "Upper/x", "Upper/x"),
            ("e/a__b--c.d", "docker.io/e/a__b--c.d", "e/a__b--c.d"),
            ("docker.io/localhost/x", "docker.io/localhost/x", "docker.io/localhost/x"),
        ] {
            let (text, whole) = (format!("{text}@{digest}"), format!("{whole}@{digest}"));
            let reference = parse(&text);
            assert_eq!(reference.to_string(), whole);
            assert_eq!(reference.familiar(), format!("{familiar}@{digest}"));
        }
    }

    #[test]
    fn what_docker_refuses_is_refused_in_its_words() {
        let long = "a/".repeat(128);
        for (text, why) in [
            ("", "invalid reference format"),
            (":tag", "invalid reference format"),
            ("a:", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("a/../b", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("a@sha256:abc", "invalid reference format"),
            ("a b", "invalid reference format"),
            ("exa mple.com/a", "invalid reference format"),
            (
                "Busybox",
                "invalid reference format: repository name (library/Busybox) must be lowercase",
            ),
            (&format!("{long}a"), "repository name must not be more than 255 characters"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap_err().to_string(), why, "{text}");
        }
        assert!(matches!("f".repeat(64).parse::<Reference>(), Err(BadReference::LooksLikeId(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_either_refused_or_reads_back_as_it_was_written(text in "\\PC{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(&parse(&reference.to_string()), &reference);
                prop_assert_eq!(parse(&reference.familiar()), reference);
            }
        }

        #[test]
        fn likely_text_too(text in "([a-zA-Z0-9.:_-]{1,9}/){0,2}[a-z0-9._-]{1,9}(:[a-z0-9._-]{1,9})?") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(&parse(&reference.to_string()), &reference);
                prop_assert_eq!(parse(&reference.familiar()), reference);
            }
        }
    }
}
