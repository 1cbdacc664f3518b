//! The cases, a file for each area. Each holds on Docker Engine 28.5, cleans up after itself, and
//! needs nothing but the image `busybox`.

mod basics;
mod building;
mod compose;
mod create;
mod endpoints;
mod files;
mod health;
mod images;
mod life;
mod looking;
mod networks;
mod operations;
mod published;
mod streams;
mod traps;
mod volumes;

use crate::scene::Scene;

/// A sentence, and the function that tries whether it is true.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) area: &'static str,
    /// The function's name.
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Scene<'_>),
    /// It looks at, or changes, what other cases make.
    pub(crate) alone: bool,
}

impl Case {
    const fn of(area: &'static str, name: &'static str, run: fn(&Scene<'_>)) -> Self {
        Self { area, name, run, alone: false }
    }

    const fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    pub(crate) fn full_name(&self) -> String {
        format!("{}: {}", self.area, self.name.replace('_', " "))
    }
}

/// The functions named, as cases of an area: their names are the sentences.
macro_rules! cases {
    ($area:literal: $($name:ident $(($alone:ident))?),* $(,)?) => {
        pub(super) const CASES: &[super::Case] =
            &[$(super::Case::of($area, stringify!($name), $name)$(.$alone())?),*];
    };
}
use cases;

const AREAS: &[&[Case]] = &[
    basics::CASES,
    create::CASES,
    life::CASES,
    streams::CASES,
    looking::CASES,
    files::CASES,
    health::CASES,
    images::CASES,
    volumes::CASES,
    networks::CASES,
    endpoints::CASES,
    published::CASES,
    building::CASES,
    compose::CASES,
    traps::CASES,
    operations::CASES,
];

pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    AREAS.iter().copied().flatten()
}

pub(crate) fn names() -> Vec<String> {
    all().map(Case::full_name).collect()
}
