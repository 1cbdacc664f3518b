//! Names of things: parse, `Display`, nothing else.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

/// The text is not 64 hexadecimal digits in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 64 hexadecimal digits")]
pub struct BadId;

fn nibble(digit: u8) -> Result<u8, BadId> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(BadId),
    }
}

fn parse_hex(text: &str) -> Result<[u8; 32], BadId> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return Err(BadId);
    }
    let mut id = [0; 32];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
    }
    Ok(id)
}

/// Not by the formatter, a byte at a time: an inspection has a dozen of them.
fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The id made of these bytes.
            #[must_use]
            pub const fn of(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// All 64 digits, without any prefix.
            #[must_use]
            pub fn hex(&self) -> String {
                hex(&self.0)
            }

            /// The first 12 digits: what `docker ps` shows.
            #[must_use]
            pub fn short(&self) -> String {
                hex(&self.0[..6])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                parse_hex(text.strip_prefix($prefix).ok_or(BadId)?).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A container.
    ContainerId = "";
    /// One process run by `docker exec`.
    ExecId = "";
    /// A network, and a container's endpoint on one.
    NetworkId = "";
    /// The digest of bytes: a blob, a layer's diff id, an image's config.
    Digest = "sha256:";
}

impl NetworkId {
    /// A number that tells it from others, never 0: its first eight bytes.
    #[must_use]
    pub fn number(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]).max(1)
    }
}

/// An image is named by the digest of its configuration.
pub type ImageId = Digest;

/// 32 bytes nobody can guess.
#[must_use]
pub fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("getrandom(2) does not fail after boot");
    bytes
}

/// A tenant: `[a-z0-9]([a-z0-9-]*[a-z0-9])?`, at most 32 characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantName(std::sync::Arc<str>);

/// The text does not name a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tenant's name is 1 to 32 of a-z, 0-9 and -, and neither begins nor ends with -")]
pub struct BadTenantName;

impl TenantName {
    /// The tenant that the operator's own socket speaks for.
    #[must_use]
    pub fn operator() -> Self {
        Self("default".into())
    }

    /// Whether this is the operator's own tenant, which may do what root may.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        &*self.0 == "default"
    }

    /// For file names and log fields.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantName {
    type Err = BadTenantName;
    fn from_str(text: &str) -> Result<Self, BadTenantName> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let long_enough = (1..=32).contains(&text.len());
        if !long_enough || !text.chars().all(legal) || text.starts_with('-') || text.ends_with('-')
        {
            return Err(BadTenantName);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for TenantName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TenantName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A volume: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, so it can name a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct VolumeName(std::sync::Arc<str>);

/// The text does not name a volume, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadVolumeName {
    #[error("volume name is too short, names should be at least two alphanumeric characters")]
    Short,
    #[error(
        "\"{0}\" includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use \
         absolute path"
    )]
    Characters(String),
    #[error("volume name is too long, names should be at most 255 characters")]
    Long,
}

impl VolumeName {
    /// Docker's name for a volume that was given none.
    #[must_use]
    pub fn random() -> Self {
        Self(ContainerId::of(random()).hex().into())
    }

    /// For file names and answers.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = BadVolumeName;
    fn from_str(text: &str) -> Result<Self, BadVolumeName> {
        if text.len() < 2 {
            return Err(BadVolumeName::Short);
        }
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !first || !text.bytes().all(legal) {
            return Err(BadVolumeName::Characters(text.to_owned()));
        }
        // NAME_MAX: it is a directory's name.
        if text.len() > 255 {
            return Err(BadVolumeName::Long);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for VolumeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volumes_name_cannot_be_a_path() {
        for text in ["", "a", "a/b", "..", ".a", "-a", "a b", "a\0b", "é1", &"a".repeat(256)] {
            assert!(text.parse::<VolumeName>().is_err(), "{text}");
        }
        assert_eq!("A_.-9".parse::<VolumeName>().map(|it| it.to_string()), Ok("A_.-9".into()));
        assert!(VolumeName::random().as_str().parse::<VolumeName>().is_ok());
    }

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let id = Digest::of(random());
        assert_eq!(id.to_string().parse(), Ok(id));
        let counted = ContainerId::of(std::array::from_fn(|at| u8::try_from(at * 8 + 1).unwrap()));
        assert_eq!(counted.short(), "010911192129");
        assert!(counted.to_string().ends_with("e1e9f1f9"));
        assert_eq!(id.hex().parse::<ContainerId>().map(|c| c.hex()), Ok(id.hex()));
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        let upper = "A".repeat(64);
        for text in ["", "abc", upper.as_str()] {
            assert_eq!(text.parse::<ContainerId>(), Err(BadId));
        }
        assert_eq!("a".repeat(64).parse::<Digest>(), Err(BadId));
    }

    #[test]
    fn a_tenant_cannot_be_named_by_a_path() {
        for text in ["", "-a", "a-", "../x", "A", "a b", &"a".repeat(33)] {
            assert_eq!(text.parse::<TenantName>(), Err(BadTenantName), "{text}");
        }
        assert_eq!("team-7".parse::<TenantName>().map(|t| t.to_string()), Ok("team-7".into()));
    }
}
