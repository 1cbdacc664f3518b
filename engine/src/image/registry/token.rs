//! What a registry wants to be shown before it answers: passwords, tokens.

use super::{Registry, RegistryError, accepted, document};
use crate::image::Auth;
use reqwest::{Method, header};
use serde::Deserialize;

/// What a token server gives.
#[derive(Debug, Deserialize)]
pub(super) struct Token {
    #[serde(alias = "access_token", default)]
    token: String,
    #[serde(default)]
    refresh_token: String,
}

impl Registry {
    /// To ask for `url`: the value of the `Authorization` header that answers a challenge, and
    /// the token with which to ask for another one, if the server gave that.
    pub(super) async fn authorize(
        &self,
        url: &str,
        challenge: &str,
        scopes: &[String],
    ) -> Result<(String, String), RegistryError> {
        let bad = || RegistryError::BadChallenge { text: challenge.to_owned() };
        let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if let Some(Auth::Bearer { token }) = &self.auth {
            return Ok((format!("Bearer {token}"), String::new()));
        }
        if scheme.eq_ignore_ascii_case("basic") {
            let Some(Auth::Basic { username, password }) = &self.auth else {
                return Err(RegistryError::NoCredentials { url: url.to_owned() });
            };
            return Ok((basic(username, password), String::new()));
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(bad());
        }
        let parameters = parameters_of(parameters);
        let find = |name: &str| {
            let mut found = parameters.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
            found.next().map(|(_, value)| value.clone())
        };
        let realm = find("realm").ok_or_else(bad)?;
        let service = find("service").unwrap_or_default();
        let mut scopes = scopes.to_vec();
        scopes.extend(find("scope").filter(|scope| !scope.is_empty() && !scopes.contains(scope)));
        let Token { token, refresh_token } = self.token(&realm, &service, &scopes).await?;
        Ok((format!("Bearer {token}"), refresh_token))
    }

    async fn token(
        &self,
        realm: &str,
        service: &str,
        scopes: &[String],
    ) -> Result<Token, RegistryError> {
        self.reach.check(realm)?;
        let mut query = vec![("service", service)];
        let joined = scopes.join(" ");
        let request = match &self.auth {
            Some(Auth::Refresh { token }) => {
                query.extend([
                    ("scope", joined.as_str()),
                    ("grant_type", "refresh_token"),
                    ("refresh_token", token),
                    ("client_id", "tritium"),
                ]);
                self.client.post(realm).form(&query)
            }
            Some(Auth::Basic { username, password }) => {
                query.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
                query.push(("account", username));
                if scopes.is_empty() {
                    // A login: the answer shall hold for longer.
                    query.extend([("client_id", "tritium"), ("offline_token", "true")]);
                }
                let authorization = basic(username, password);
                self.client.get(realm).query(&query).header(header::AUTHORIZATION, authorization)
            }
            Some(Auth::Bearer { .. }) | None => {
                query.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
                self.client.get(realm).query(&query)
            }
        };
        let response = request.send().await.map_err(|source| RegistryError::Unreachable {
            method: Method::GET,
            url: realm.to_owned(),
            source,
        })?;
        let bytes = document(accepted(response, realm).await?, realm).await?;
        let bad = |source| RegistryError::BadToken { url: realm.to_owned(), source };
        serde_json::from_slice::<Token>(&bytes).map_err(bad)
    }
}

pub(super) fn basic(username: &str, password: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

/// `a="b, c",d=e`
fn parameters_of(text: &str) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while let Some((name, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        parameters.push((name.trim().to_owned(), value.trim().to_owned()));
        rest = next.trim_start_matches([' ', ',']);
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_taken_apart() {
        let found = parameters_of(r#"realm="https://a/t?x=1,2",service=b, scope="c:d:pull,push""#);
        let expected =
            [("realm", "https://a/t?x=1,2"), ("service", "b"), ("scope", "c:d:pull,push")];
        assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}
