//! `ADD URL`, or a build's whole context: one file from a web server.
//!
//! The engine fetches it, from the host's network. For a tenant that must be
//! no way around the guard to what listens on the host or beside it: only
//! public addresses are spoken to, checked where a name is resolved and again
//! for every redirection, so that no answer of a name server helps.

use super::{files, report::cancelled};
use crate::{
    error::Error,
    ids::Digest,
    storage::{Blob, Store},
};
use reqwest::{
    Client, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};
use tokio_util::sync::CancellationToken;

const REDIRECTIONS: usize = 10;
/// Of a file, in bytes.
const LARGEST: u64 = 16 << 30;

/// What has come.
#[derive(Debug)]
pub(super) struct Fetched {
    blob: Blob,
    digest: Digest,
    name: String,
    /// Seconds since 1970, as the server says.
    modified: Option<i64>,
}

pub(super) fn is_url(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    lower.starts_with("http://") || lower.starts_with("https://")
}

/// # Errors
/// It is not there, or not allowed.
pub(super) async fn fetch(
    store: &Store,
    text: &str,
    private: bool,
    cancel: &CancellationToken,
) -> Result<Fetched, Error> {
    let work = fetch_whole(store, text, private);
    tokio::select! {
        () = cancel.cancelled() => Err(cancelled()),
        fetched = work => fetched,
    }
}

async fn fetch_whole(store: &Store, text: &str, private: bool) -> Result<Fetched, Error> {
    let url: Url = text.parse().map_err(|why| Error::Invalid(format!("{text}: {why}")))?;
    if url.path().ends_with(".git") {
        return Err(Error::Unsupported(format!(
            "adding a git repository is not built yet: {text}"
        )));
    }
    check(&url, private)?;
    let failed = |error: reqwest::Error| {
        Error::Invalid(format!("Get \"{text}\": {}", crate::error::chain(&error.without_url())))
    };
    let client = client(private).map_err(failed)?;
    let mut response = client.get(url.clone()).send().await.map_err(failed)?;
    let status = response.status();
    if !status.is_success() {
        return Err(Error::Invalid(format!("failed to GET {text} with status {status}: ")));
    }
    let name = url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default();
    let modified = response.headers().get(http::header::LAST_MODIFIED);
    let modified = modified.and_then(|value| value.to_str().ok()).and_then(seconds);
    let mut writer = Some(store.write_blob()?);
    let (mut size, mut hash) = (0_u64, Sha256::new());
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        size += chunk.len() as u64;
        if size > LARGEST {
            return Err(Error::Invalid(format!("{text} has more than {LARGEST} bytes")));
        }
        hash.update(&chunk);
        let Some(mut blob) = writer.take() else { break };
        let written = tokio::task::spawn_blocking(move || blob.write(&chunk).map(|()| blob));
        let written = written.await.map_err(|error| Error::internal("cannot write", error))?;
        writer = Some(written?);
    }
    let Some(blob) = writer else { return Err(cancelled()) };
    let digest = Digest::of(hash.finalize().into());
    Ok(Fetched { blob: blob.finish(Some(digest))?, digest, name: name.to_owned(), modified })
}

/// RFC 9110's dates are RFC 2822's.
fn seconds(text: &str) -> Option<i64> {
    jiff::fmt::rfc2822::parse(text).ok().map(|at| at.timestamp().as_second())
}

impl Fetched {
    pub(super) fn digest(&self) -> String {
        format!("file:{}", self.digest.hex())
    }

    pub(super) fn open(&self) -> Result<File, Error> {
        Ok(self.blob.open()?)
    }

    /// `ADD --checksum`.
    pub(super) fn check(&self, expected: &str) -> Result<(), Error> {
        let received = self.digest.to_string();
        if received == expected {
            return Ok(());
        }
        Err(Error::Invalid(format!("digest mismatch {received}: {expected}")))
    }

    pub(super) fn put(&self, put: &files::Put<'_>) -> Result<(), Error> {
        if put.into && self.name.is_empty() {
            return Err(Error::Invalid(
                "ADD failed: cannot determine filename for the url".to_owned(),
            ));
        }
        let mut file = self.open()?;
        let time = Some(self.modified.unwrap_or(0));
        files::put_stream(&mut file, (&self.name, 0o600, time), put)
    }
}

fn client(private: bool) -> Result<Client, reqwest::Error> {
    let redirect = Policy::custom(move |attempt| {
        if attempt.previous().len() >= REDIRECTIONS {
            return attempt.error("too many redirections");
        }
        match check(attempt.url(), private) {
            Ok(()) => attempt.follow(),
            Err(error) => attempt.error(error),
        }
    });
    let builder = crate::image::web_client();
    // A proxy would resolve names in our place.
    let builder = builder.redirect(redirect).no_proxy();
    match private {
        true => builder.build(),
        false => builder.dns_resolver(Arc::new(PublicOnly)).build(),
    }
}

/// A URL may name an address itself.
fn check(url: &Url, private: bool) -> Result<(), Error> {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(address) if !private && !is_public(address) => Err(refused(host)),
        _ => Ok(()),
    }
}

fn refused(host: &str) -> Error {
    Error::Denied(format!("a tenant's build may not fetch from {host}: it is no public address"))
}

/// Names whose addresses are not all public are no names.
#[derive(Debug)]
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<SocketAddr> = found.collect();
            if let Some(private) = found.iter().find(|address| !is_public(address.ip())) {
                return Err(refused(&format!("{} ({})", name.as_str(), private.ip())).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Not of this host, not of a network beside it, not of special use (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || a == 0
        || a >= 224
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19)))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Those that carry an IPv4 address are as public as that one.
    if let Some(embedded) = crate::image::embedded(address) {
        return is_public_v4(embedded);
    }
    let segments = address.segments();
    // Global unicast, less documentation and what is for protocols.
    segments[0] & 0xe000 == 0x2000
        && !(segments[0] == 0x2001 && (segments[1] == 0xdb8 || segments[1] < 0x200))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for text in ["1.1.1.1", "2606:4700::1", "::ffff:1.1.1.1"] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_url_that_names_an_address_is_checked_too() {
        let of = |text: &str| check(&text.parse().unwrap(), false).is_ok();
        assert!(!of("http://127.0.0.1/x") && !of("http://[::1]:80/") && !of("http://0x7f.1/"));
        assert!(of("http://1.1.1.1/x") && of("https://example.com/"));
        assert!(check(&"http://127.0.0.1/".parse().unwrap(), true).is_ok());
    }
}
