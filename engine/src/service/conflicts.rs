//! Options that contradict each other, as the user gave them: before an image's defaults are merged.

use crate::{
    error::Error,
    spec::{Config, HostConfig},
};

/// Refuses what a container cannot have for itself that shares another's network or the host's name.
///
/// # Errors
/// `Invalid` in Docker's words.
pub(super) fn check(config: &Config, host: &HostConfig) -> Result<(), Error> {
    let shares = host.network_mode.starts_with("container:");
    let named = !config.hostname.is_empty();
    let exposes = config.exposed_ports.as_ref().is_some_and(|ports| !ports.is_empty());
    let bound = host.port_bindings.as_ref().is_some_and(|bindings| !bindings.is_empty());
    let publishes = bound || host.publish_all_ports;
    let refused = [
        (shares && named, "hostname and the network mode"),
        (host.uts_mode == "host" && named, "hostname and the UTS mode"),
        (shares && publishes, "port publishing and the container type network mode"),
        (shares && exposes, "port exposing and the container type network mode"),
    ];
    match refused.iter().find(|(wrong, _)| *wrong) {
        Some((_, what)) => Err(Error::Invalid(format!("conflicting options: {what}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(config: &str, host: &str) -> Option<String> {
        let config = serde_json::from_str(config).unwrap();
        let host = serde_json::from_str(host).unwrap();
        check(&config, &host).err().map(|error| error.to_string())
    }

    #[test]
    fn who_shares_a_network_has_no_name_and_no_ports_of_its_own() {
        let shared = r#"{"NetworkMode":"container:y"}"#;
        assert_eq!(words("{}", shared), None);
        assert!(words(r#"{"Hostname":"x"}"#, shared).is_some());
        assert!(words(r#"{"ExposedPorts":{"80/tcp":{}}}"#, shared).is_some());
        assert!(words(r#"{"Hostname":"x"}"#, r#"{"UTSMode":"host"}"#).is_some());
        assert_eq!(words(r#"{"Hostname":"x"}"#, r#"{"NetworkMode":"host"}"#), None);
    }
}
