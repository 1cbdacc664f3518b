//! OpenTelemetry's environment variables → an exporter.

use std::time::Duration;

use super::Exporter;

/// The specification's default for `OTEL_METRIC_EXPORT_INTERVAL`.
const INTERVAL: Duration = Duration::from_secs(60);

/// How OTLP is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC over HTTP/2.
    Grpc,
    /// Protobuf posted over HTTP.
    HttpProtobuf,
}

/// Why the environment does not make an exporter.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{variable} is {value:?}; {expected} is expected")]
pub struct BadExport {
    /// The variable's name.
    pub variable: &'static str,
    /// What it holds.
    pub value: String,
    /// What it may hold.
    pub expected: &'static str,
}

impl Exporter {
    /// Reads `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_PROTOCOL`,
    /// `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_METRIC_EXPORT_INTERVAL`,
    /// `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` by `variable`
    /// (as `|name| std::env::var(name).ok()`). `None` without an endpoint.
    ///
    /// # Errors
    /// When a variable cannot be understood.
    pub fn from_environment(
        version: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, BadExport> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let Some(endpoint) = variable("OTEL_EXPORTER_OTLP_ENDPOINT") else { return Ok(None) };
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(bad(
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                endpoint,
                "a URL that begins with http:// or https://",
            ));
        }
        let protocol = protocol(variable("OTEL_EXPORTER_OTLP_PROTOCOL").as_deref())?;
        let endpoint = match protocol {
            Protocol::Grpc => endpoint,
            Protocol::HttpProtobuf => format!("{}/v1/metrics", endpoint.trim_end_matches('/')),
        };
        let headers = pairs("OTEL_EXPORTER_OTLP_HEADERS", variable("OTEL_EXPORTER_OTLP_HEADERS"))?;
        let interval = interval(variable("OTEL_METRIC_EXPORT_INTERVAL"))?;
        let mut resource = pairs("OTEL_RESOURCE_ATTRIBUTES", variable("OTEL_RESOURCE_ATTRIBUTES"))?;
        if let Some(name) = variable("OTEL_SERVICE_NAME") {
            resource.retain(|(key, _)| key != "service.name");
            resource.push(("service.name".to_owned(), name));
        }
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        for (key, value) in
            [("service.name", "tritium"), ("service.version", version), ("host.name", &host)]
        {
            if resource.iter().all(|(known, _)| known != key) {
                resource.push((key.to_owned(), value.to_owned()));
            }
        }
        Ok(Some(Self { protocol, endpoint, headers, interval, resource }))
    }
}

fn protocol(value: Option<&str>) -> Result<Protocol, BadExport> {
    match value {
        Some("grpc") => Ok(Protocol::Grpc),
        None | Some("http/protobuf") => Ok(Protocol::HttpProtobuf),
        Some(other) => {
            Err(bad("OTEL_EXPORTER_OTLP_PROTOCOL", other.to_owned(), "grpc or http/protobuf"))
        }
    }
}

fn interval(value: Option<String>) -> Result<Duration, BadExport> {
    let Some(value) = value else { return Ok(INTERVAL) };
    match value.parse::<u64>() {
        Ok(millis) if millis > 0 => Ok(Duration::from_millis(millis)),
        Ok(_) | Err(_) => {
            Err(bad("OTEL_METRIC_EXPORT_INTERVAL", value, "a number of milliseconds above 0"))
        }
    }
}

/// `key=value,key=value`, values percent-encoded as in W3C's baggage.
fn pairs(
    variable: &'static str,
    value: Option<String>,
) -> Result<Vec<(String, String)>, BadExport> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let parsed = value.split(',').filter(|pair| !pair.trim().is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=')?;
        Some((key.trim().to_owned(), percent_decoded(value.trim())?))
    });
    match parsed.collect() {
        Some(pairs) => Ok(pairs),
        None => Err(bad(variable, value, "key=value,key=value with percent-encoded values")),
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
            bytes.push(high << 4 | low);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn bad(variable: &'static str, value: String, expected: &'static str) -> BadExport {
    BadExport { variable, value, expected }
}
