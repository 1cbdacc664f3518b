//! The queries of the Grafana dashboards, as Grafana would send them. For tests: a dashboard that
//! asks for a name nobody exports is an empty panel that nobody notices.

use serde_json::Value;

/// The dashboards, by file name.
pub const FILES: [(&str, &str); 1] =
    [("tritium.json", include_str!("../../dashboards/tritium.json"))];

/// One query of one panel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The panel's title.
    pub panel: String,
    /// PromQL, with every variable filled in.
    pub expression: String,
    /// Whether an empty answer is fine: the panel's description says when.
    pub may_be_empty: bool,
}

/// Why a dashboard cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadDashboard {
    /// It is no JSON.
    #[error("{0} is no JSON")]
    Json(&'static str, #[source] serde_json::Error),
    /// A panel has no title, description or query.
    #[error("a panel of {0} has no title, no description or no query")]
    Panel(&'static str),
    /// A query has a variable that is none of the dashboard's.
    #[error("{0} has the unknown variable in {1}")]
    Variable(&'static str, String),
}

/// Every query of every dashboard, for all tenants, containers and system calls; `interval`
/// stands for `$__rate_interval`, as `10s`.
///
/// # Errors
/// When a dashboard is not as Grafana needs it.
pub fn queries(interval: &str) -> Result<Vec<Query>, BadDashboard> {
    let mut queries = Vec::new();
    for (file, text) in FILES {
        let dashboard: Value =
            serde_json::from_str(text).map_err(|error| BadDashboard::Json(file, error))?;
        for panel in dashboard["panels"].as_array().into_iter().flatten() {
            if panel["type"] != "row" {
                queries.extend(of_panel(file, panel, interval)?);
            }
        }
    }
    Ok(queries)
}

fn of_panel(file: &'static str, panel: &Value, interval: &str) -> Result<Vec<Query>, BadDashboard> {
    let bad = || BadDashboard::Panel(file);
    let title = panel["title"].as_str().ok_or_else(bad)?;
    let description = panel["description"].as_str().ok_or_else(bad)?;
    let targets =
        panel["targets"].as_array().filter(|targets| !targets.is_empty()).ok_or_else(bad)?;
    let mut queries = Vec::new();
    for target in targets {
        let expression = target["expr"]
            .as_str()
            .ok_or_else(bad)?
            .replace("$__rate_interval", interval)
            .replace("\"$tenant\"", "\".*\"")
            .replace("\"$container\"", "\".*\"")
            .replace("\"$syscall\"", "\".*\"");
        if expression.contains('$') {
            return Err(BadDashboard::Variable(file, expression));
        }
        let may_be_empty = description.contains("Empty when");
        queries.push(Query { panel: title.to_owned(), expression, may_be_empty });
    }
    Ok(queries)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::metrics::{ALL, Kind};

    /// Names in an expression that look like metrics: before a brace or an operator, and not functions or labels.
    fn names(expression: &str) -> impl Iterator<Item = &str> {
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| {
            word.starts_with("tritium_")
                || (word.starts_with("container_") && word.matches('_').count() > 1)
        })
    }

    #[test]
    fn every_metric_that_a_panel_asks_for_is_exported() {
        let mut exported = HashSet::new();
        for metric in ALL {
            let name = metric.prometheus_name();
            if metric.kind == Kind::Histogram {
                exported.extend(["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}")));
            } else {
                exported.insert(name);
            }
        }
        let mut asked = 0;
        for query in queries("10s").unwrap() {
            let found: Vec<&str> = names(&query.expression).collect();
            assert!(!found.is_empty(), "{query:?}");
            for name in found {
                assert!(exported.contains(name), "{name} in panel {}", query.panel);
                asked += 1;
            }
        }
        assert!(asked > 20);
    }

    #[test]
    fn the_dashboards_readme_names_every_panel() {
        let readme = include_str!("../../dashboards/README.md");
        for query in queries("10s").unwrap() {
            assert!(readme.contains(&format!("| {} |", query.panel)), "{}", query.panel);
        }
    }
}
