//! What requests say, read as loosely as Docker reads it: parameters, bodies.

use super::error::{Answer, Failure, invalid};
use crate::spec::nanos;
use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Request},
};
use futures_util::TryStreamExt;
use http::{header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::convert::Infallible;

/// No JSON body is longer, in bytes. (Archives have no limit.)
const LONGEST_BODY: usize = 16 * 1024 * 1024;

/// The parameters behind the `?`; a name may be given several times.
#[derive(Debug, Clone, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    /// The first value; empty if there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.given(name).unwrap_or_default()
    }

    /// The first value, if it is there and not empty.
    pub(super) fn some(&self, name: &str) -> Option<&str> {
        self.given(name).filter(|value| !value.is_empty())
    }

    /// The first value, even an empty one.
    pub(super) fn given(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values, in the order in which they were given.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Everything but these words is true (moby's `httputils.BoolValue`).
    pub(super) fn flag(&self, name: &str) -> bool {
        let value = self.text(name).trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// A number, if one is given.
    pub(super) fn number(&self, name: &str) -> Answer<Option<i64>> {
        self.some(name).map(number).transpose()
    }

    /// A moment in nanoseconds since 1970, if one is given: `1136073600`,
    /// `1136073600.000000001`.
    pub(super) fn moment(&self, name: &str) -> Answer<Option<i64>> {
        self.some(name).map(moment).transpose()
    }
}

fn number(text: &str) -> Answer<i64> {
    text.parse().map_err(|_| invalid(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
}

/// Also RFC 3339, which clients of other engines send.
pub(super) fn moment(text: &str) -> Answer<i64> {
    let bad = || invalid(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"));
    if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
        return i64::try_from(stamp.as_nanosecond()).map_err(|_| bad());
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().map_err(|_| bad())?;
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let nanos: i64 = format!("{fraction:0<9}").parse().map_err(|_| bad())?;
    // The Go client sends 0 and negative numbers for "for ever".
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Go's durations: `1h30m`, `-1.5h`, `300ms`, in nanoseconds.
pub(super) fn go_duration(text: &str) -> Option<i64> {
    match text.strip_prefix('-') {
        Some(rest) => nanos(rest).map(|nanos| -nanos),
        None => nanos(text.strip_prefix('+').unwrap_or(text)),
    }
}

/// `%41`, `+`; what is no escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = bytes.get(at + 1..at + 3).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 16).ok()
        });
        match (byte, escaped) {
            (b'%', Some(value)) => {
                plain.push(value);
                at += 2;
            }
            (b'+', _) => plain.push(b' '),
            _ => plain.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&plain).into_owned()
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

/// A JSON body by Docker's rules: the content type must say so, unknown fields
/// are ignored, nothing may follow.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Failure;
    async fn from_request(request: Request, state: &S) -> Answer<Self> {
        let OptionalJson(value) = OptionalJson::from_request(request, state).await?;
        value.map(Self).ok_or_else(|| invalid("invalid JSON: got EOF while reading request body"))
    }
}

/// The same; no body at all is fine too.
#[derive(Debug)]
pub(super) struct OptionalJson<T>(pub(super) Option<T>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for OptionalJson<T> {
    type Rejection = Failure;
    async fn from_request(request: Request, _: &S) -> Answer<Self> {
        let (parts, body) = request.into_parts();
        let bytes = read(body).await?;
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        let kind = parts.headers.get(header::CONTENT_TYPE);
        let kind = kind.map(|kind| String::from_utf8_lossy(kind.as_bytes()).into_owned());
        let kind = kind.unwrap_or_default();
        let main = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        // Docker lets an absent type pass when there is no body only.
        if main != "application/json" {
            return Err(invalid(format!(
                "unsupported Content-Type header ({kind}): must be 'application/json'"
            )));
        }
        from_json(&bytes).map(|value| Self(Some(value)))
    }
}

async fn read(body: Body) -> Answer<Vec<u8>> {
    match Limited::new(body, LONGEST_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(invalid("the request body is too large"))
        }
        Err(error) => Err(invalid(format!("cannot read the request body: {error}"))),
    }
}

/// Parses JSON with Docker's complaints where it is none. By way of a value:
/// of a field that is given twice, the last one counts, as in Go.
pub(super) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Answer<T> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<serde_json::Value>();
    let value = match values.next() {
        None => return Err(invalid("invalid JSON: got EOF while reading request body")),
        Some(Ok(value)) => value,
        Some(Err(error)) if error.is_eof() => {
            return Err(invalid("invalid JSON: unexpected EOF"));
        }
        Some(Err(error)) => {
            return Err(invalid(format!("invalid JSON: {}", syntax(bytes, &error))));
        }
    };
    let rest = bytes.get(values.byte_offset()..).unwrap_or_default();
    if !rest.iter().all(u8::is_ascii_whitespace) {
        return Err(invalid("unexpected content after JSON"));
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let at = if path == "." { String::new() } else { format!(" (at .{path})") };
        invalid(format!("invalid JSON: {}{at}", error.into_inner()))
    })
}

/// Go's words where it is about one character, serde's elsewhere.
fn syntax(bytes: &[u8], error: &serde_json::Error) -> String {
    let lines = bytes.split(|byte| *byte == b'\n');
    let line = lines.into_iter().nth(error.line().saturating_sub(1)).unwrap_or_default();
    let at = line.get(error.column().saturating_sub(1)).copied();
    let wants_value = error.to_string().starts_with("expected value");
    match at.filter(u8::is_ascii_graphic) {
        Some(byte) if wants_value || error.to_string().starts_with("expected ident") => {
            let first = if wants_value { byte } else { bytes.first().copied().unwrap_or(byte) };
            format!("invalid character '{}' looking for beginning of value", char::from(first))
        }
        Some(_) | None => error.to_string(),
    }
}

/// A body that is bytes for the room below: a tar archive.
pub(super) fn reader(body: Body) -> impl tokio::io::AsyncRead + Send + Unpin + 'static {
    let stream = TryStreamExt::map_err(body.into_data_stream(), std::io::Error::other);
    tokio_util::io::StreamReader::new(Box::pin(stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: std::fmt::Debug>(answer: Answer<T>) -> String {
        answer.unwrap_err().0.to_string()
    }

    #[test]
    fn booleans_are_read_as_loosely_as_docker_does() {
        let params = Params::parse("a=1&b=true&c=yes&d=&e=0&f=False&g=none&h=no&i");
        for name in ["a", "b", "c"] {
            assert!(params.flag(name), "{name}");
        }
        for name in ["d", "e", "f", "g", "h", "i", "absent"] {
            assert!(!params.flag(name), "{name}");
        }
    }

    #[test]
    fn parameters_are_decoded_and_may_repeat() {
        let params = Params::parse("names=a%2Fb&names=c+d&x=%zz&x=%4");
        assert_eq!(params.all("names").collect::<Vec<_>>(), ["a/b", "c d"]);
        assert_eq!(params.all("x").collect::<Vec<_>>(), ["%zz", "%4"]);
    }

    #[test]
    fn moments_are_seconds_with_a_fraction_or_rfc_3339() {
        let params = Params::parse("a=1.5&b=1136073600.000000001&c=1970-01-01T00:00:02Z&d=x&e=1.x");
        assert_eq!(params.moment("a").unwrap(), Some(1_500_000_000));
        assert_eq!(params.moment("b").unwrap(), Some(1_136_073_600_000_000_001));
        assert_eq!(params.moment("c").unwrap(), Some(2_000_000_000));
        assert_eq!(refused(params.moment("d")), "strconv.ParseInt: parsing \"x\": invalid syntax");
        assert!(params.moment("e").is_err());
        assert_eq!(params.moment("absent").unwrap(), None);
    }

    #[test]
    fn durations_are_gos() {
        for (text, nanos) in [
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("300ms", Some(300_000_000)),
            ("-2m", Some(-120_000_000_000)),
            ("0", Some(0)),
            ("10", None),
            ("h", None),
            ("", None),
            ("1d", None),
            ("2026-01-01", None),
        ] {
            assert_eq!(go_duration(text), nanos, "{text}");
        }
    }

    #[test]
    fn bad_json_is_refused_in_dockers_words() {
        let parse = |text: &str| refused(from_json::<serde_json::Value>(text.as_bytes()));
        assert_eq!(parse("{"), "invalid JSON: unexpected EOF");
        assert_eq!(parse("  "), "invalid JSON: got EOF while reading request body");
        assert_eq!(
            parse("garbage"),
            "invalid JSON: invalid character 'g' looking for beginning of value"
        );
        assert_eq!(parse("{} x"), "unexpected content after JSON");
        assert!(parse(&"[".repeat(100_000)).starts_with("invalid JSON: "));
    }

    #[test]
    fn a_wrong_type_is_refused_with_the_field_it_is_in() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Host {
            #[expect(dead_code, reason = "only its type counts here")]
            memory: i64,
        }
        let said = refused(from_json::<Host>(br#"{"Memory":"x"}"#));
        assert_eq!(said, "invalid JSON: invalid type: string \"x\", expected i64 (at .Memory)");
    }

    #[test]
    fn of_a_field_that_is_given_twice_the_last_one_counts() {
        let value: serde_json::Value = from_json(br#"{"a":1,"a":2}"#).unwrap();
        assert_eq!(value["a"], 2);
    }
}
