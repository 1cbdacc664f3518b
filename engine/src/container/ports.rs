//! `-p` and `--expose`, from Docker's texts to what the network is asked: pure.

use crate::{
    error::Error,
    network::{Proto, PublishRequest},
    spec::{Config, HostConfig, PortBinding},
};
use std::{net::IpAddr, ops::RangeInclusive};

/// Everything that is to be published.
///
/// # Errors
/// Docker's words for a port, an address or a protocol that is none.
pub fn publish(config: &Config, host: &HostConfig) -> Result<Vec<PublishRequest>, Error> {
    let mut ports = Vec::new();
    for (text, bindings) in host.port_bindings.iter().flatten() {
        let (container_port, proto) = published(text)?;
        let any = [PortBinding::default()];
        let bindings = bindings.as_deref().filter(|list| !list.is_empty()).unwrap_or(&any);
        for binding in bindings {
            ports.push(PublishRequest {
                container_port,
                proto,
                host_ip: host_ip(&binding.host_ip)?,
                host_port: host_port(&binding.host_port)?,
            });
        }
    }
    let exposed = config.exposed_ports.iter().flatten().map(|(text, _)| text);
    for text in exposed {
        // Whatever it is, so long as nobody is to reach it by the host.
        port(text)?;
        let named = host.port_bindings.as_ref().is_some_and(|named| named.contains_key(text));
        if host.publish_all_ports && !named {
            let (container_port, proto) = published(text)?;
            ports.push(PublishRequest { container_port, proto, host_ip: None, host_port: None });
        }
    }
    Ok(ports)
}

/// A port that can be published.
fn published(text: &str) -> Result<(u16, Proto), Error> {
    let (number, proto) = port(text)?;
    let unbuilt = || Error::Unsupported(format!("publishing SCTP ports ({text}) is not built yet"));
    Ok((number, proto.ok_or_else(unbuilt)?))
}

/// `80`, `80/tcp`, `53/udp`; none of these two: `132/sctp`.
fn port(text: &str) -> Result<(u16, Option<Proto>), Error> {
    let (number, proto) = text.split_once('/').unwrap_or((text, "tcp"));
    let proto = match proto.to_ascii_lowercase().as_str() {
        "tcp" | "" => Some(Proto::Tcp),
        "udp" => Some(Proto::Udp),
        "sctp" => None,
        _ => return Err(Error::Invalid(format!("invalid proto: {proto}"))),
    };
    let number = number.parse::<u16>().ok().filter(|number| *number > 0);
    let number =
        number.ok_or_else(|| Error::Invalid(format!("invalid port specification: \"{text}\"")))?;
    Ok((number, proto))
}

fn host_ip(text: &str) -> Result<Option<IpAddr>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| Error::Invalid(format!("invalid IP address: {text}")))
}

/// Empty: any; a number, or `from-to`.
fn host_port(text: &str) -> Result<Option<RangeInclusive<u16>>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let bad = || Error::Invalid(format!("invalid port specification: \"{text}\""));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first: u16 = first.parse().map_err(|_| bad())?;
    let last: u16 = last.parse().map_err(|_| bad())?;
    match first {
        0 if last == 0 => Ok(None),
        _ if first > last => Err(bad()),
        _ => Ok(Some(first..=last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_docker_writes_them() {
        let host: HostConfig = serde_json::from_str(
            r#"{"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080"}],"53/udp":null}}"#,
        )
        .unwrap();
        let ports = publish(&Config::default(), &host).unwrap();
        assert_eq!(ports[0].proto, Proto::Udp);
        assert_eq!((ports[0].host_ip, ports[0].host_port.clone()), (None, None));
        assert_eq!(ports[1].container_port, 80);
        assert_eq!(ports[1].host_port, Some(8080..=8080));
    }

    #[test]
    fn exposed_ports_are_published_only_when_all_are_to_be() {
        let config: Config = serde_json::from_str(r#"{"ExposedPorts":{"80/tcp":{}}}"#).unwrap();
        assert_eq!(publish(&config, &HostConfig::default()).unwrap(), []);
        let host = HostConfig { publish_all_ports: true, ..HostConfig::default() };
        assert_eq!(publish(&config, &host).unwrap().len(), 1);
    }

    #[test]
    fn sctp_may_be_exposed_and_is_refused_where_it_would_be_published() {
        let config: Config = serde_json::from_str(r#"{"ExposedPorts":{"80/sctp":{}}}"#).unwrap();
        assert_eq!(publish(&config, &HostConfig::default()).unwrap(), []);
        let all = HostConfig { publish_all_ports: true, ..HostConfig::default() };
        let one: HostConfig =
            serde_json::from_str(r#"{"PortBindings":{"80/sctp":[{"HostPort":"80"}]}}"#).unwrap();
        for refused in [publish(&config, &all), publish(&Config::default(), &one)] {
            let error = refused.unwrap_err();
            assert!(matches!(error, Error::Unsupported(_)), "{error}");
            assert_eq!(error.to_string(), "publishing SCTP ports (80/sctp) is not built yet");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["0/tcp", "x/tcp", "80/icmp", "70000"] {
            assert!(port(text).is_err(), "{text}");
        }
        for text in ["9-8", "x", "70000", "1-"] {
            assert!(host_port(text).is_err(), "{text}");
        }
        assert!(host_ip("1.2.3").is_err());
    }
}
