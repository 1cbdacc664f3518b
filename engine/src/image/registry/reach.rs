//! How far a tenant may send the engine by way of a registry.
//!
//! A registry names other places: where a token is got, where a blob is, where
//! to send one. The engine goes there from the host's network, past the guard.
//! So for a tenant that the operator is not, such a place must not be the host
//! itself. It is looked at by the address that is then connected to: what a
//! name server says between the look and the connection does not matter. And
//! what it leads to must have a certificate: containers of other tenants, which
//! the host reaches by their addresses, have none.
//!
//! Where the operator has set a proxy, names that go through it are the proxy's
//! to resolve, and its to refuse; addresses in URLs are checked all the same.

use crate::ids::TenantName;
use nix::sys::socket::SockaddrStorage;
use reqwest::{
    ClientBuilder, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::{Attempt, Policy},
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, OnceLock},
};

const REDIRECTIONS: usize = 10;
const PROXIES: [&str; 3] = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"];

/// Where the requests of one use of a registry may go.
#[derive(Debug, Clone)]
pub(super) enum Reach {
    /// The operator's own.
    Anywhere,
    Fenced(Arc<Fence>),
}

/// A tenant's.
#[derive(Debug)]
pub(super) struct Fence {
    /// The registry that the tenant has named: host and port.
    host: String,
    port: Option<u16>,
    /// Whether it stands on this host, as its name said when it was first resolved.
    here: OnceLock<bool>,
}

/// Why a place is not gone to.
#[derive(Debug, thiserror::Error)]
#[error("a tenant's registry may not lead to the host, nor anywhere without TLS ({place})")]
pub(in crate::image) struct Astray {
    place: String,
}

impl Reach {
    /// `base`: the registry's own URL.
    pub(super) fn of(tenant: &TenantName, base: &str) -> Self {
        if tenant.is_operator() {
            return Self::Anywhere;
        }
        let url = Url::parse(base).ok();
        let host = url.as_ref().map(|url| bare(url).to_owned()).unwrap_or_default();
        let port = url.and_then(|url| url.port_or_known_default());
        Self::Fenced(Arc::new(Fence { host, port, here: OnceLock::new() }))
    }

    /// A client that goes no further, not by a redirection either.
    pub(super) fn limit(&self, builder: ClientBuilder) -> ClientBuilder {
        let Self::Fenced(fence) = self else { return builder };
        let redirects = fence.clone();
        let builder = builder.redirect(Policy::custom(move |attempt| redirects.follow(attempt)));
        builder.dns_resolver(Resolver { fence: fence.clone(), proxies: proxies() })
    }

    /// Whether a URL may be asked at all.
    pub(super) fn check(&self, url: &str) -> Result<(), Astray> {
        match (self, Url::parse(url)) {
            (Self::Fenced(fence), Ok(url)) => fence.check(&url),
            // What is no URL is not gone to, and is said to be none.
            (Self::Anywhere, _) | (_, Err(_)) => Ok(()),
        }
    }
}

impl Fence {
    fn follow(&self, attempt: Attempt<'_>) -> reqwest::redirect::Action {
        if attempt.previous().len() >= REDIRECTIONS {
            return attempt.error("too many redirections");
        }
        match self.check(attempt.url()) {
            Ok(()) => attempt.follow(),
            Err(astray) => attempt.error(astray),
        }
    }

    fn check(&self, url: &Url) -> Result<(), Astray> {
        let host = bare(url);
        let own = host == self.host;
        if own && url.port_or_known_default() == self.port {
            return Ok(());
        }
        let astray = match host.parse::<IpAddr>() {
            // The host reaches every tenant's containers, which nobody has a certificate for.
            _ if url.scheme() != "https" => true,
            Ok(address) => is_here(address, &addresses()),
            // Another port of the same machine: it has been resolved by now.
            Err(_) => own && self.here.get() == Some(&true),
        };
        match astray {
            true => Err(Astray { place: url.authority().to_owned() }),
            false => Ok(()),
        }
    }

    /// The addresses that a name has, if all of them may be gone to.
    fn judge(&self, name: &str, found: &[SocketAddr], own: &[IpAddr]) -> Result<(), Astray> {
        let here = found.iter().find(|address| is_here(address.ip(), own));
        // The registry itself may stand on this host, where others see it too;
        // a name that changes its mind about that may not.
        if name == self.host
            && found.iter().all(|address| !is_private_to_host(address.ip()))
            && *self.here.get_or_init(|| here.is_some()) == here.is_some()
        {
            return Ok(());
        }
        match here {
            Some(address) => Err(Astray { place: format!("{name}, {}", address.ip()) }),
            None => Ok(()),
        }
    }
}

#[derive(Debug)]
struct Resolver {
    fence: Arc<Fence>,
    /// The operator's proxies may stand on this host.
    proxies: Vec<String>,
}

/// Their hosts.
fn proxies() -> Vec<String> {
    let names = PROXIES.into_iter().flat_map(|name| [name.to_owned(), name.to_lowercase()]);
    let set = names.filter_map(|name| std::env::var(name).ok());
    let urls = set.filter_map(|text| {
        Url::parse(&text)
            .ok()
            .filter(Url::has_host)
            .or_else(|| Url::parse(&format!("http://{text}")).ok())
    });
    urls.map(|url| bare(&url).to_owned()).collect()
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let fence = self.fence.clone();
        let proxy = self.proxies.iter().any(|proxy| proxy == name.as_str());
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<SocketAddr> = found.collect();
            if !proxy {
                fence.judge(name.as_str(), &found, &addresses())?;
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether a registry that is named so is the host's own business: its
/// loopback, or what only this machine can reach. However it is written.
#[must_use]
pub fn is_private_registry(registry: &str) -> bool {
    let Ok(url) = Url::parse(&format!("https://{registry}/")) else { return false };
    let host = bare(&url).trim_end_matches('.');
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse().is_ok_and(is_private_to_host)
}

/// Without the brackets of an IPv6 address.
fn bare(url: &Url) -> &str {
    let host = url.host_str().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']')
}

fn is_here(address: IpAddr, own: &[IpAddr]) -> bool {
    is_private_to_host(address) || own.contains(&plain(address))
}

/// This machine, whatever its addresses are, or what hears it alone: loopback,
/// "this host", link-local (where clouds keep a machine's credentials).
fn is_private_to_host(address: IpAddr) -> bool {
    match plain(address) {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
    }
}

/// An IPv4 address that an IPv6 address carries is as good as that one.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => embedded(v6).map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// Mapped, translated (64:ff9b::/96), 6to4.
pub(crate) fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let (high, low) = match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => (high, low),
        [0x2002, high, low, ..] => (high, low),
        _ => return None,
    };
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Some(Ipv4Addr::new(a, b, c, d))
}

/// The host's, as they are now. What cannot be listed is taken for none: then
/// there is no network to go to either.
fn addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    interfaces.filter_map(|interface| interface.address.as_ref().and_then(address)).collect()
}

fn address(of: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = of.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| of.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(base: &str) -> Arc<Fence> {
        match Reach::of(&"team".parse().unwrap(), base) {
            Reach::Fenced(fence) => fence,
            Reach::Anywhere => panic!("a tenant is fenced"),
        }
    }

    #[test]
    fn the_hosts_own_is_known_however_it_is_written() {
        for name in [
            "localhost:5000",
            "a.localhost",
            "localhost.",
            "127.0.0.1",
            "127.8.9.1:1",
            "0x7f.1:5000",
            "2130706433",
            "0.0.0.0:5000",
            "[::1]:5000",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "169.254.169.254",
            "[fe80::1]",
        ] {
            assert!(is_private_registry(name), "{name}");
        }
        for name in ["docker.io", "10.0.0.1:5000", "localhost.evil.com", "[2001:db8::1]"] {
            assert!(!is_private_registry(name), "{name}");
        }
    }

    #[test]
    fn a_url_leads_to_the_registry_or_away_from_the_host() {
        let fence = fence("http://127.0.0.1:5000/v2/");
        let check = |url: &str| fence.check(&url.parse().unwrap());
        assert!(check("http://127.0.0.1:5000/v2/token").is_ok(), "it was named");
        for url in [
            "http://127.0.0.1:2375/",
            "http://[::1]/",
            "http://0.0.0.0:5000/",
            "http://169.254.169.254/latest/meta-data",
            "http://172.17.0.2/",
            "http://a.example/",
        ] {
            assert!(check(url).is_err(), "{url}");
        }
        assert!(check("https://10.9.8.7/token").is_ok() && check("https://a.example/").is_ok());
        assert!(matches!(
            Reach::of(&TenantName::operator(), "http://127.0.0.1:5000/v2/"),
            Reach::Anywhere
        ));
    }

    #[test]
    fn a_name_that_turns_to_the_host_is_not_followed() {
        let own = ["10.1.1.1".parse().unwrap()];
        let at = |text: &str| vec![SocketAddr::new(text.parse().unwrap(), 0)];
        let elsewhere = fence("https://registry.example/v2/");
        let judge = |fence: &Fence, name: &str, to: &str| fence.judge(name, &at(to), &own).is_ok();
        assert!(judge(&elsewhere, "registry.example", "10.1.1.2"));
        assert!(!judge(&elsewhere, "registry.example", "10.1.1.1"), "it was elsewhere before");
        assert!(!judge(&elsewhere, "cdn.example", "10.1.1.1"));
        assert!(!judge(&elsewhere, "cdn.example", "127.0.0.1"));
        assert!(judge(&elsewhere, "cdn.example", "10.1.1.3"));
        // One that stands on this host: only there where the tenant has named it.
        let here = fence("https://registry.example:5000/v2/");
        assert!(judge(&here, "registry.example", "10.1.1.1"));
        assert!(!judge(&here, "registry.example", "127.0.0.1"));
        assert!(here.check(&"https://registry.example:5000/x".parse().unwrap()).is_ok());
        assert!(here.check(&"https://registry.example:2376/x".parse().unwrap()).is_err());
    }

    #[tokio::test]
    async fn neither_a_redirection_nor_a_name_leads_to_the_host() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let secret = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = secret.local_addr().unwrap().port();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                assert_ne!(stream.read(&mut request).await.unwrap(), 0);
                let answer = format!(
                    "HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:{to}/\r\nContent-Length: 0\r\n\
                     Connection: close\r\n\r\n"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let asks = async {
            let base = format!("http://127.0.0.1:{port}/v2/");
            let reach = Reach::of(&"team".parse().unwrap(), &base);
            let client = reach.limit(super::super::builder().no_proxy()).build().unwrap();
            for url in [base.as_str(), &format!("http://localhost:{to}/")] {
                let error = client.get(url).send().await.unwrap_err();
                let words = crate::error::chain(&error);
                assert!(words.contains("may not lead to the host"), "{words}");
            }
            assert!(reach.check(&format!("http://127.0.0.1:{to}/token")).is_err());
        };
        tokio::select! {
            () = server => {}
            () = asks => {}
            _ = secret.accept() => panic!("the host was asked"),
        }
    }
}
