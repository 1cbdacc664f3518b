//! Build arguments: which are given, which a stage may see. Pure.

use super::parse::Arg;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

/// Seen without being declared, and no part of the cache's key then.
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What one stage knows.
#[derive(Debug, Clone)]
pub(super) struct Args {
    /// `--build-arg`; without a value it only allows the name.
    given: Arc<BTreeMap<String, Option<String>>>,
    /// Declared before the first `FROM`, and the platform's.
    globals: BTreeMap<String, Option<String>>,
    /// Declared in this stage.
    declared: BTreeMap<String, Option<String>>,
    /// Declared anywhere: the others are warned of.
    used: Arc<Mutex<BTreeSet<String>>>,
}

impl Args {
    pub(super) fn new(given: BTreeMap<String, Option<String>>) -> Self {
        let architecture = crate::image::Platform::host().architecture;
        let mut globals = BTreeMap::new();
        for side in ["TARGET", "BUILD"] {
            for (name, value) in [
                ("PLATFORM", format!("linux/{architecture}")),
                ("OS", "linux".to_owned()),
                ("ARCH", architecture.clone()),
                ("VARIANT", String::new()),
            ] {
                globals.insert(format!("{side}{name}"), Some(value));
            }
        }
        let (given, used) = (Arc::new(given), Arc::default());
        Self { given, globals, declared: BTreeMap::new(), used }
    }

    /// `ARG` before the first `FROM`.
    pub(super) fn declare_global(&mut self, arg: &Arg) {
        self.note(&arg.name);
        let known = self.globals.get(&arg.name).cloned().flatten();
        self.globals.insert(arg.name.clone(), arg.default.clone().or(known));
    }

    /// `ARG` in a stage.
    pub(super) fn declare(&mut self, arg: &Arg) {
        self.note(&arg.name);
        self.declared.insert(arg.name.clone(), arg.default.clone());
    }

    fn note(&self, name: &str) {
        self.used.lock().expect("no panic happens under this lock").insert(name.to_owned());
    }

    /// Another stage begins: what the last one declared is forgotten.
    pub(super) fn of_stage(&self) -> Self {
        Self { declared: BTreeMap::new(), ..self.clone() }
    }

    fn given(&self, name: &str) -> Option<String> {
        self.given.get(name).cloned().flatten()
    }

    /// In `FROM`.
    pub(super) fn global(&self, name: &str) -> Option<String> {
        let declared = self.globals.get(name)?;
        self.given(name).or_else(|| declared.clone())
    }

    /// In a stage.
    fn value(&self, name: &str) -> Option<String> {
        match self.declared.get(name) {
            Some(default) => self
                .given(name)
                .or_else(|| default.clone())
                .or_else(|| self.globals.get(name).cloned().flatten()),
            None if PROXIES.contains(&name) => self.given(name),
            None => None,
        }
    }

    /// Those that the environment does not have already, in order of names.
    pub(super) fn visible(&self, env: &[String]) -> Vec<(String, String)> {
        let names: BTreeSet<&str> =
            self.declared.keys().map(String::as_str).chain(PROXIES).collect();
        let hidden = |name: &str| env.iter().any(|entry| entry.split('=').next() == Some(name));
        let visible = names.into_iter().filter(|name| !hidden(name));
        visible.filter_map(|name| Some((name.to_owned(), self.value(name)?))).collect()
    }

    /// The same as history and cache know them: proxies only where declared.
    pub(super) fn recorded(&self, env: &[String]) -> Vec<String> {
        let visible = self.visible(env).into_iter();
        let counts = |name: &str| self.declared.contains_key(name);
        visible
            .filter(|(name, _)| counts(name))
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    /// Given, and declared by nobody.
    pub(super) fn unused(&self) -> Vec<String> {
        let used = self.used.lock().expect("no panic happens under this lock");
        let names = self.given.keys();
        names.filter(|n| !used.contains(*n) && !PROXIES.contains(&n.as_str())).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arg(name: &str, default: Option<&str>) -> Arg {
        Arg { name: name.to_owned(), default: default.map(str::to_owned) }
    }

    fn given(pairs: &[(&str, &str)]) -> Args {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), Some((*value).to_owned())));
        Args::new(pairs.collect())
    }

    #[test]
    fn an_argument_is_seen_from_its_declaration_on_and_only_in_its_stage() {
        let mut args = given(&[("a", "1")]);
        assert_eq!(args.recorded(&[]), [""; 0]);
        args.declare(&arg("a", Some("default")));
        args.declare(&arg("b", Some("default")));
        assert_eq!(args.recorded(&[]), ["a=1", "b=default"]);
        assert_eq!(args.recorded(&["b=env".to_owned()]), ["a=1"]);
        assert_eq!(args.of_stage().recorded(&[]), [""; 0]);
    }

    #[test]
    fn a_global_is_for_from_and_for_stages_that_declare_it() {
        let mut args = given(&[("v", "2")]);
        args.declare_global(&arg("v", Some("1")));
        args.declare_global(&arg("w", Some("x")));
        assert_eq!(args.global("v").as_deref(), Some("2"));
        assert_eq!(args.global("TARGETOS").as_deref(), Some("linux"));
        args.declare(&arg("w", None));
        assert_eq!(args.recorded(&[]), ["w=x"]);
    }

    #[test]
    fn proxies_are_seen_by_commands_but_not_recorded() {
        let args = given(&[("http_proxy", "p"), ("other", "x")]);
        assert_eq!(args.visible(&[]), [("http_proxy".to_owned(), "p".to_owned())]);
        assert_eq!(args.recorded(&[]), [""; 0]);
        assert_eq!(args.unused(), ["other"]);
    }
}
