//! Manifests and indexes, OCI's and Docker's, and which one is for this machine.

use super::{Image, Platform};
use crate::ids::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a registry may send us when asked for a manifest.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// One of the two, told apart by what they hold: their media type is optional
/// in OCI, and not to be relied upon.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Document {
    Manifest(Manifest),
    Index(Index),
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    #[serde(default)]
    pub(super) layers: Vec<Descriptor>,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub(super) struct Index {
    pub(super) manifests: Vec<Descriptor>,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    #[serde(default)]
    pub(super) size: u64,
    #[serde(default)]
    pub(super) platform: Option<Wanted>,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
}

/// A platform as an index has it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Wanted {
    architecture: String,
    os: String,
    variant: Option<String>,
}

/// The bytes are no manifest.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadManifest {
    #[error("it is not JSON as it should be: {0}")]
    Json(#[from] serde_json::Error),
    #[error("schema 1 manifests are no longer supported")]
    Schema1,
    #[error("it is neither a manifest nor an index")]
    Neither,
}

impl Document {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, BadManifest> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Either {
            #[serde(default)]
            schema_version: u32,
            config: Option<Descriptor>,
            #[serde(default)]
            layers: Vec<Descriptor>,
            manifests: Option<Vec<Descriptor>>,
        }
        let either = serde_json::from_slice::<Either>(bytes)?;
        match either {
            Either { schema_version: 1, .. } => Err(BadManifest::Schema1),
            Either { config: Some(config), layers, manifests: None, .. } => {
                Ok(Self::Manifest(Manifest { config, layers }))
            }
            Either { config: None, manifests: Some(manifests), .. } => {
                Ok(Self::Index(Index { manifests }))
            }
            // Both at once would be read differently by different readers.
            Either { .. } => Err(BadManifest::Neither),
        }
    }
}

impl Index {
    /// Which platforms it has something for.
    pub(super) fn platforms(&self) -> Vec<Platform> {
        let platforms = self.manifests.iter().filter_map(|one| one.platform.as_ref());
        let platforms = platforms.map(|wanted| Platform {
            os: wanted.os.clone(),
            architecture: wanted.architecture.clone(),
            variant: wanted.variant.clone(),
        });
        platforms.collect()
    }

    /// The manifest for a platform; none if there is none.
    pub(super) fn choose(&self, platform: &Platform) -> Option<&Descriptor> {
        let fits = |descriptor: &&Descriptor| {
            // Attestations are beside the images, for no platform.
            let wanted = descriptor.platform.as_ref();
            wanted.is_some_and(|wanted| {
                wanted.os == platform.os && wanted.architecture == platform.architecture
            })
        };
        let variant = |descriptor: &&Descriptor| {
            let wanted = descriptor.platform.as_ref().and_then(|wanted| wanted.variant.as_deref());
            wanted.unwrap_or("") == platform.variant.as_deref().unwrap_or("")
        };
        let fitting = self.manifests.iter().filter(fits);
        let exact = fitting.clone().find(variant);
        let any = || match platform.variant {
            // Who names a variant wants that one.
            Some(_) => None,
            None => fitting.clone().next(),
        };
        let nameless = || match self.manifests.as_slice() {
            [only] if only.platform.is_none() => Some(only),
            _ => None,
        };
        exact.or_else(any).or_else(nameless)
    }
}

impl Platform {
    /// This machine's.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }
}

impl Platform {
    /// An image's.
    #[must_use]
    pub fn of(image: &Image) -> Self {
        let config = &image.config;
        let variant = Some(config.variant.clone()).filter(|variant| !variant.is_empty());
        Self { os: config.os.clone(), architecture: config.architecture.clone(), variant }
    }

    /// Whether an image is for it. An image that names no variant is for all.
    #[must_use]
    pub fn is_of(&self, image: &Image) -> bool {
        let config = &image.config;
        self.os == config.os
            && self.architecture == config.architecture
            && self
                .variant
                .as_ref()
                .is_none_or(|variant| config.variant.is_empty() || *variant == config.variant)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &str) -> Index {
        let digest = format!("sha256:{}", "a".repeat(64));
        let manifests = platforms.split(' ').map(|platform| {
            let mut parts = platform.split('/');
            let mut next = || parts.next().unwrap_or_default().to_owned();
            let (os, architecture, variant) = (next(), next(), next());
            let variant = Some(variant).filter(|variant| !variant.is_empty());
            let platform = Some(Wanted { architecture, os, variant });
            let (media_type, annotations) = (String::new(), BTreeMap::new());
            Descriptor {
                media_type,
                digest: digest.parse().unwrap(),
                size: 0,
                platform,
                annotations,
            }
        });
        Index { manifests: manifests.collect() }
    }

    fn chosen(index: &Index, platform: &str) -> Option<usize> {
        let mut parts = platform.split('/').map(str::to_owned);
        let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
        let platform = Platform { os, architecture, variant: parts.next() };
        let chosen = index.choose(&platform)?;
        index.manifests.iter().position(|manifest| std::ptr::eq(manifest, chosen))
    }

    #[test]
    fn the_manifest_for_the_platform_is_chosen() {
        let index = index("unknown/unknown linux/arm/v6 linux/arm/v7 linux/amd64");
        assert_eq!(chosen(&index, "linux/amd64"), Some(3));
        assert_eq!(chosen(&index, "linux/arm/v7"), Some(2));
        assert_eq!(chosen(&index, "linux/arm"), Some(1));
        assert_eq!(chosen(&index, "linux/arm/v8"), None);
        assert_eq!(chosen(&index, "windows/amd64"), None);
    }

    #[test]
    fn what_is_manifest_and_index_at_once_is_neither() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let both = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{digest}"}},"layers":[],"manifests":[]}}"#
        );
        assert!(matches!(Document::parse(both.as_bytes()), Err(BadManifest::Neither)));
        assert!(matches!(Document::parse(br#"{"schemaVersion":1}"#), Err(BadManifest::Schema1)));
        assert!(matches!(Document::parse(b"<html>"), Err(BadManifest::Json(_))));
    }

    proptest::proptest! {
        /// What a registry sends is a manifest, an index, or refused; and what
        /// is read once is written and read to the same.
        #[test]
        fn whatever_a_registry_sends_is_read_or_refused(
            head in "[{\\[]?", name in "(manifests|config|layers|schemaVersion)",
            value in "(\\[\\]|\\{\\}|null|1|2|-1|\"x\")", tail in "[\\PC]{0,40}",
        ) {
            for text in [format!("{head}\"{name}\":{value}{tail}"), format!("{{\"{name}\":{value}}}"), tail] {
                if let Ok(document) = Document::parse(text.as_bytes()) {
                    let again = match &document {
                        Document::Manifest(manifest) => serde_json::to_vec(manifest).unwrap(),
                        Document::Index(index) => serde_json::to_vec(index).unwrap(),
                    };
                    proptest::prop_assert_eq!(Document::parse(&again).unwrap(), document);
                }
            }
        }
    }
}
