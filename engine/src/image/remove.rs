//! Which names and images `docker rmi` takes away, and when it refuses: what
//! Docker's `ImageDelete` decides, as a pure function over one catalogue.

use super::{
    Image, Reference, Removal, Removed, Users,
    catalog::{Catalog, parse},
};
use crate::{error::Error, ids::ImageId};
use std::{collections::HashSet, sync::Arc};

/// What shall be done, in order, and what the user is told.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) unname: Vec<Reference>,
    pub(super) forget: Vec<Arc<Image>>,
    pub(super) told: Vec<Removed>,
}

impl Plan {
    fn unname(&mut self, catalog: &mut Catalog, reference: Reference) {
        catalog.unname(&reference);
        self.told.push(Removed::Untagged(reference.familiar()));
        self.unname.push(reference);
    }
}

/// Whether an image's names are in the way of its removal, or go with it.
#[derive(Clone, Copy, PartialEq)]
enum Names {
    Count,
    Go,
}

struct Conflict {
    text: String,
    /// A container is what stands in the way.
    used: bool,
}

/// `catalog` is a copy: the plan is tried out on it.
pub(super) fn plan(
    mut catalog: Catalog,
    name: &str,
    how: Removal,
    users: &Users,
) -> Result<Plan, Error> {
    let image = catalog.find(name)?.clone();
    let names = catalog.names(image.id).collect::<Vec<_>>();
    let mut plan = Plan::default();
    let by_name = !is_prefix_of(name, image.id);
    if by_name {
        if !how.force
            && is_single(&names)
            && let Some(user) = users(&image.id)
        {
            return Err(Error::Conflict(format!(
                "conflict: unable to remove repository reference \"{name}\" (must force) - \
                 container {} is using its referenced image {}",
                user.container,
                image.id.short()
            )));
        }
        untag(&mut plan, &mut catalog, &image, name)?;
        if catalog.names(image.id).next().is_some() {
            return Ok(plan);
        }
    } else if is_single(&names) {
        if let Some(conflict) = conflict(&catalog, &image, how, Names::Go, users) {
            return Err(Error::Conflict(conflict.text));
        }
        for reference in names {
            plan.unname(&mut catalog, reference);
        }
    }
    delete(&mut plan, &mut catalog, &image, how, (by_name, users))?;
    Ok(plan)
}

fn untag(plan: &mut Plan, catalog: &mut Catalog, image: &Image, name: &str) -> Result<(), Error> {
    let asked = parse(name)?.or_latest();
    let stored = asked.digest().map_or_else(|| asked.clone(), |digest| asked.at(digest));
    let repository = stored.familiar_name();
    plan.unname(catalog, stored);
    // Digests alone are no reason to keep an image whose last tag went.
    let rest = catalog.names(image.id).filter(|r| r.familiar_name() == repository);
    let rest = rest.collect::<Vec<_>>();
    if asked.digest().is_none() && rest.iter().all(|r| r.digest().is_some()) {
        for reference in rest {
            plan.unname(catalog, reference);
        }
    }
    Ok(())
}

/// `quiet`: a name has been removed already, so only a lost image is worth a
/// complaint.
fn delete(
    plan: &mut Plan,
    catalog: &mut Catalog,
    image: &Arc<Image>,
    how: Removal,
    (quiet, users): (bool, &Users),
) -> Result<(), Error> {
    if let Some(conflict) = conflict(catalog, image, how, Names::Count, users) {
        let dangling = catalog.names(image.id).next().is_none() && !catalog.has_children(image.id);
        if quiet && (!dangling || conflict.used) {
            return Ok(());
        }
        return Err(Error::Conflict(conflict.text));
    }
    for reference in catalog.names(image.id).collect::<Vec<_>>() {
        plan.unname(catalog, reference);
    }
    plan.told.push(Removed::Deleted(image.id));
    plan.told.extend(catalog.chains_only_of(image).into_iter().map(Removed::Deleted));
    catalog.forget(image.id);
    plan.forget.push(image.clone());
    match image.parent.and_then(|parent| catalog.get(parent).cloned()) {
        Some(parent) if !how.no_prune => {
            let how = Removal { force: false, no_prune: false };
            delete(plan, catalog, &parent, how, (true, users))
        }
        _ => Ok(()),
    }
}

/// What stands in the way. With `force` only what cannot be forced.
fn conflict(
    catalog: &Catalog,
    image: &Image,
    how: Removal,
    names: Names,
    users: &Users,
) -> Option<Conflict> {
    let user = users(&image.id);
    let (message, hard, used) = match &user {
        _ if catalog.has_children(image.id) => {
            ("image has dependent child images".to_owned(), true, false)
        }
        Some(user) if user.running => {
            (format!("image is being used by running container {}", user.container), true, true)
        }
        _ if names == Names::Count && catalog.names(image.id).next().is_some() => {
            ("image is referenced in multiple repositories".to_owned(), false, false)
        }
        Some(user) => {
            (format!("image is being used by stopped container {}", user.container), false, true)
        }
        None => return None,
    };
    if how.force && !hard {
        return None;
    }
    let forced = if hard { "cannot be forced" } else { "must be forced" };
    let text = format!("conflict: unable to delete {} ({forced}) - {message}", image.id.short());
    Some(Conflict { text, used })
}

fn is_prefix_of(name: &str, id: ImageId) -> bool {
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    !digits.is_empty() && id.hex().starts_with(digits)
}

/// At most one tag, and all digests in its repository.
fn is_single(names: &[Reference]) -> bool {
    let tags = names.iter().filter(|name| name.digest().is_none()).count();
    let repositories = names.iter().map(Reference::familiar_name).collect::<HashSet<_>>();
    names.len() <= 1 || (tags <= 1 && repositories.len() == 1)
}

#[cfg(test)]
mod tests {
    use super::super::{ImageConfig, InUse};
    use super::*;
    use crate::ids::Digest;

    fn image(number: u8, parent: Option<u8>) -> Image {
        Image {
            id: Digest::of([number; 32]),
            config: ImageConfig::default(),
            raw: "{}".into(),
            layers: vec![Digest::of([100 + number; 32])],
            size: 0,
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
            parent: parent.map(|parent| Digest::of([parent; 32])),
            tagged_at: 0,
        }
    }

    fn catalog(names: &[&str]) -> Catalog {
        let mut catalog = Catalog::default();
        catalog.add(image(1, None));
        for name in names {
            catalog.name(name.parse().unwrap(), Digest::of([1; 32]), 0);
        }
        catalog
    }

    fn nobody(_: &ImageId) -> Option<InUse> {
        None
    }

    fn somebody(running: bool) -> impl Fn(&ImageId) -> Option<InUse> + Send + Sync {
        move |_| Some(InUse { container: "abcdefabcdef".to_owned(), running })
    }

    fn refusal(catalog: &Catalog, name: &str, how: Removal, users: &Users) -> String {
        plan(catalog.clone(), name, how, users).unwrap_err().to_string()
    }

    #[test]
    fn the_last_name_takes_the_image_with_it() {
        let told = plan(catalog(&["x:1"]), "x:1", Removal::default(), &nobody).unwrap().told;
        let id = Digest::of([1; 32]);
        let layer = Digest::of([101; 32]);
        assert_eq!(
            told,
            [Removed::Untagged("x:1".into()), Removed::Deleted(id), Removed::Deleted(layer)]
        );
    }

    #[test]
    fn one_of_two_names_is_only_untagged() {
        let plan = plan(catalog(&["x:1", "x:2"]), "x:1", Removal::default(), &nobody).unwrap();
        assert_eq!(plan.told, [Removed::Untagged("x:1".into())]);
        assert!(plan.forget.is_empty());
    }

    #[test]
    fn an_image_in_use_is_refused_in_dockers_words() {
        let force = Removal { force: true, no_prune: false };
        let named = catalog(&["x:1"]);
        assert_eq!(
            refusal(&named, "x:1", Removal::default(), &somebody(false)),
            "conflict: unable to remove repository reference \"x:1\" (must force) - container \
             abcdefabcdef is using its referenced image 010101010101"
        );
        assert_eq!(
            refusal(&named, "010101", Removal::default(), &somebody(false)),
            "conflict: unable to delete 010101010101 (must be forced) - image is being used by \
             stopped container abcdefabcdef"
        );
        assert_eq!(
            refusal(&named, "010101", force, &somebody(true)),
            "conflict: unable to delete 010101010101 (cannot be forced) - image is being used by \
             running container abcdefabcdef"
        );
        assert_eq!(
            refusal(&catalog(&["x:1", "y:1"]), "010101", Removal::default(), &nobody),
            "conflict: unable to delete 010101010101 (must be forced) - image is referenced in \
             multiple repositories"
        );
    }

    #[test]
    fn a_parent_cannot_go_before_its_child_and_an_unnamed_one_goes_after_it() {
        let mut family = catalog(&[]);
        family.add(image(2, Some(1)));
        assert_eq!(
            refusal(&family, "0101", Removal { force: true, no_prune: false }, &nobody),
            "conflict: unable to delete 010101010101 (cannot be forced) - image has dependent \
             child images"
        );
        let plan = plan(family, "0202", Removal::default(), &nobody).unwrap();
        assert_eq!(plan.forget.len(), 2);
    }

    #[test]
    fn an_unknown_image_is_called_as_docker_calls_it() {
        let none = Catalog::default();
        assert_eq!(none.find("x").unwrap_err().to_string(), "No such image: x:latest");
        assert!(matches!(none.find("X"), Err(Error::Invalid(_))));
    }
}
