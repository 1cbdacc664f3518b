//! `?filters=`: what a list shall be narrowed to.

use super::{
    error::{Answer, invalid},
    extract::Params,
};
use std::collections::{BTreeMap, BTreeSet};

/// Values by name; Docker writes them `{"label":{"a=b":true}}` or, older,
/// `{"label":["a=b"]}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filters(BTreeMap<String, BTreeSet<String>>);

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Values {
    Map(BTreeMap<String, bool>),
    List(Vec<String>),
}

impl Filters {
    /// The filters of a request. `known` are the names that may be used; none:
    /// any.
    pub(super) fn of(params: &Params, known: &[&str]) -> Answer<Self> {
        let Some(text) = params.some("filters") else { return Ok(Self::default()) };
        let filters = Self::parse(text)?;
        match filters.0.keys().find(|name| !known.is_empty() && !known.contains(&name.as_str())) {
            Some(name) => Err(invalid(format!("invalid filter '{name}'"))),
            None => Ok(filters),
        }
    }

    fn parse(text: &str) -> Answer<Self> {
        let given: BTreeMap<String, Values> =
            serde_json::from_str(text).map_err(|_| invalid("invalid filter"))?;
        let values = |values| match values {
            Values::Map(map) => map.into_iter().filter(|(_, on)| *on).map(|(key, _)| key).collect(),
            Values::List(list) => list.into_iter().collect(),
        };
        Ok(Self(given.into_iter().map(|(name, given)| (name, values(given))).collect()))
    }

    /// Whether this filter is used at all.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    pub(super) fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// Whether one of the values is `fits`, or there are none.
    pub(super) fn any(&self, name: &str, fits: impl FnMut(&str) -> bool) -> bool {
        !self.has(name) || self.values(name).any(fits)
    }

    /// Whether one of the values is this one, or there are none.
    pub(super) fn exact(&self, name: &str, value: &str) -> bool {
        self.any(name, |wanted| wanted == value)
    }

    /// Whether one of the values is the beginning of this one, or there are none.
    pub(super) fn prefix(&self, name: &str, value: &str) -> bool {
        self.any(name, |wanted| value.starts_with(wanted))
    }

    /// Whether all of the values `key` or `key=value` are among the labels.
    pub(super) fn labels(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.values(name).all(|wanted| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|own| own == value),
            None => labels.contains_key(wanted),
        })
    }

    /// The opposite: whether none of the values is among the labels.
    pub(super) fn unlabelled(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        !self.has(name) || !self.labels(name, labels)
    }

    /// A filter that is true or false, if it is there.
    pub(super) fn flag(&self, name: &str) -> Answer<Option<bool>> {
        let Some(value) = self.values(name).next() else { return Ok(None) };
        match value {
            "1" | "true" | "True" | "t" => Ok(Some(true)),
            "0" | "false" | "False" | "f" => Ok(Some(false)),
            _ => Err(invalid(format!("invalid filter '{name}=[{value}]'"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, known: &[&str]) -> Answer<Filters> {
        let params = Params::parse(&format!("filters={}", text.replace('"', "%22")));
        Filters::of(&params, known)
    }

    #[test]
    fn both_encodings_mean_the_same() {
        let map = of(r#"{"label":{"a=b":true,"c":false}}"#, &["label"]).unwrap();
        let list = of(r#"{"label":["a=b"]}"#, &["label"]).unwrap();
        assert_eq!(map, list);
        assert_eq!(map.values("label").collect::<Vec<_>>(), ["a=b"]);
    }

    #[test]
    fn what_is_no_filter_is_refused_in_dockers_words() {
        let said = |text| of(text, &["label"]).unwrap_err().0.to_string();
        assert_eq!(said("xx"), "invalid filter");
        assert_eq!(said(r#"{"label":7}"#), "invalid filter");
        assert_eq!(said(r#"{"nope":["a"]}"#), "invalid filter 'nope'");
        assert!(of(r#"{"nope":["a"]}"#, &[]).is_ok());
    }

    #[test]
    fn several_values_are_one_or_the_other_but_labels_are_all_wanted() {
        let filters = of(r#"{"status":["a","b"],"label":["x","y=1"]}"#, &[]).unwrap();
        assert!(filters.exact("status", "b"));
        assert!(!filters.exact("status", "c"));
        assert!(filters.exact("absent", "anything"));
        let labels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
        };
        assert!(filters.labels("label", &labels(&[("x", ""), ("y", "1")])));
        assert!(!filters.labels("label", &labels(&[("x", ""), ("y", "2")])));
        assert!(!filters.labels("label", &labels(&[("y", "1")])));
    }
}
