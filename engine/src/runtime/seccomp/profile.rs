//! A seccomp profile as Docker reads it, and what it says on this host.

use super::super::capabilities::{self, Set};
use serde::Deserialize;

/// A profile that cannot be meant. The words are Docker's.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum BadProfile {
    #[error("Decoding seccomp profile failed: {0}")]
    Json(#[from] serde_json::Error),
    #[error(
        "both 'architectures' and 'archMap' are specified in the seccomp profile, use either \
         'architectures' or 'archMap'"
    )]
    BothArchitectures,
    #[error(
        "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
    )]
    BothNames,
    #[error("string {0} is not a valid action for seccomp")]
    Action(String),
    #[error("string {0} is not a valid operator for seccomp")]
    Operator(String),
    #[error("string {0} is not a valid arch for seccomp")]
    Architecture(String),
    #[error("invalid kernel version in the seccomp profile: {0}")]
    Kernel(String),
    #[error("seccomp notification is not supported by this engine")]
    Notify,
}

/// Docker's form of a profile.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct Profile {
    #[serde(default)]
    pub(super) default_action: String,
    #[serde(default)]
    pub(super) default_errno_ret: Option<u32>,
    #[serde(default)]
    pub(super) architectures: Option<Vec<String>>,
    #[serde(default)]
    pub(super) arch_map: Option<Vec<Architecture>>,
    #[serde(default)]
    pub(super) flags: Option<Vec<String>>,
    #[serde(default)]
    pub(super) syscalls: Option<Vec<Rule>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Architecture {
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    pub(super) action: String,
    #[serde(default)]
    pub(super) errno_ret: Option<u32>,
    #[serde(default)]
    pub(super) args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Option<Condition>,
    #[serde(default)]
    excludes: Option<Condition>,
}

/// A condition on one of the call's six arguments.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Argument {
    pub(super) index: u32,
    pub(super) value: u64,
    #[serde(default)]
    pub(super) value_two: u64,
    pub(super) op: String,
}

/// When a rule holds; all of it must.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

impl Profile {
    /// Reads a profile and says what is wrong with it.
    pub(in super::super) fn parse(text: &str) -> Result<Self, BadProfile> {
        let profile: Self = serde_json::from_str(text)?;
        let given = |list: Option<usize>| list.is_some_and(|count| count > 0);
        if given(profile.architectures.as_ref().map(Vec::len))
            && given(profile.arch_map.as_ref().map(Vec::len))
        {
            return Err(BadProfile::BothArchitectures);
        }
        let default = profile.default_errno_ret;
        super::compile::action(&profile.default_action, default)?;
        for name in profile.architectures.iter().flatten() {
            super::compile::architecture(name)?;
        }
        for rule in profile.syscalls.iter().flatten() {
            if !rule.name.is_empty() && rule.names.as_ref().is_some_and(|names| !names.is_empty()) {
                return Err(BadProfile::BothNames);
            }
            super::compile::action(&rule.action, rule.errno_ret)?;
            for argument in rule.args.iter().flatten() {
                super::compile::comparison(argument)?;
            }
            for condition in rule.includes.iter().chain(&rule.excludes) {
                condition.min_kernel.as_deref().map(parse_kernel).transpose()?;
            }
        }
        Ok(profile)
    }

    /// The rules that hold for these capabilities on a host with this kernel.
    pub(super) fn rules(
        &self,
        capabilities: Set,
        kernel: (u32, u32),
    ) -> impl Iterator<Item = &Rule> {
        self.syscalls.iter().flatten().filter(move |rule| rule.holds(capabilities, kernel))
    }
}

impl Rule {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let one = (!self.name.is_empty()).then_some(self.name.as_str());
        one.into_iter().chain(self.names.iter().flatten().map(String::as_str))
    }

    fn holds(&self, capabilities: Set, kernel: (u32, u32)) -> bool {
        let included = self.includes.as_ref().is_none_or(|condition| {
            let Condition { caps, arches, min_kernel } = condition;
            caps.iter().flatten().all(|name| has(capabilities, name))
                && arches.as_ref().is_none_or(|list| list.is_empty() || list.iter().any(native))
                && min_kernel.as_deref().is_none_or(|least| at_least(kernel, least))
        });
        let excluded = self.excludes.as_ref().is_some_and(|condition| {
            let Condition { caps, arches, min_kernel } = condition;
            caps.iter().flatten().any(|name| has(capabilities, name))
                || arches.iter().flatten().any(native)
                || min_kernel.as_deref().is_some_and(|least| at_least(kernel, least))
        });
        included && !excluded
    }
}

fn has(set: Set, name: &str) -> bool {
    capabilities::number(name).is_some_and(|number| set.has(number))
}

fn native(name: &String) -> bool {
    match std::env::consts::ARCH {
        "x86_64" => name == "amd64",
        "aarch64" => name == "arm64",
        other => name == other,
    }
}

fn at_least(kernel: (u32, u32), least: &str) -> bool {
    // Checked when the profile was parsed.
    parse_kernel(least).is_ok_and(|least| kernel >= least)
}

fn parse_kernel(text: &str) -> Result<(u32, u32), BadProfile> {
    let bad = || BadProfile::Kernel(text.to_owned());
    let (major, minor) = text.split_once('.').ok_or_else(bad)?;
    Ok((major.parse().map_err(|_| bad())?, minor.parse().map_err(|_| bad())?))
}
