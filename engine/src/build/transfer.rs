//! `COPY`, `ADD` and `WORKDIR`: files into a layer of their own.

use super::{
    Context,
    fetch::{self, Fetched},
    files::{self, Found, Owner, Put},
    ignore::Ignore,
    job::Job,
    parse::{Copy, Heredoc, Source},
    stage::{Key, Stage},
};
use crate::{
    error::Error,
    ids::Digest,
    storage::{Pin, archive},
};
use rustix::{fd::OwnedFd, fs::OFlags};
use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    io::Read,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Of a file of names, in bytes.
const NAMES: u64 = 4 << 20;

/// Where sources are looked for.
enum Tree {
    Context(Context),
    /// The layers of another stage or image, kept for as long.
    Layers(Vec<Arc<Pin>>),
}

/// A tree, open.
enum Open {
    Context(Context),
    Layers(OwnedFd),
}

/// One source, looked at.
enum Item {
    /// And where below the target it goes.
    File(Found, PathBuf),
    Document(Heredoc),
    Fetched(Fetched),
}

/// Everything about one copy that is decided before it is made.
struct Plan {
    copy: Copy,
    /// `COPY` or `ADD`.
    name: &'static str,
    open: Open,
    items: Vec<Item>,
    exclude: Ignore,
    work_directory: String,
}

impl Open {
    fn root(&self) -> &OwnedFd {
        match self {
            Self::Context(context) => context.root(),
            Self::Layers(root) => root,
        }
    }
}

impl Item {
    fn digest(&self) -> String {
        match self {
            Self::File(found, below) => format!("{}{}", found.digest, below.display()),
            Self::Document(document) => {
                let text = format!("{}\0{}", document.name, document.content());
                format!("file:{}", Digest::of(Sha256::digest(text).into()).hex())
            }
            Self::Fetched(fetched) => fetched.digest(),
        }
    }
}

impl Stage<'_> {
    pub(super) async fn transfer(&mut self, copy: &Copy, name: &'static str) -> Result<(), Error> {
        let tree = self.tree(copy).await?;
        let fetched = self.fetch(copy, name).await?;
        let (layers, copy) = (self.state.layers(), copy.clone());
        let work_directory = self.state.config.config.working_dir.clone();
        let planned =
            self.job.blocking(move |job| plan(job, tree, fetched, (copy, name), work_directory));
        let plan = planned.await?;
        let digests: Vec<String> = plan.items.iter().map(Item::digest).collect();
        let whole = match digests.as_slice() {
            [one] => one.clone(),
            many => {
                format!("multi:{}", Digest::of(Sha256::digest(many.join(",")).into()).hex())
            }
        };
        let chown = plan.copy.chown.as_ref().map(|chown| format!("--chown={chown} "));
        let chown = chown.unwrap_or_default();
        let by = self.state.nop(&format!("{name} {chown}{whole} in {} ", plan.copy.to));
        // Where it comes from is in the digests.
        let said = Copy { from: None, ..plan.copy.clone() };
        let key = Key::of(name).and(&format!("{said:?}")).and(&whole).over(self.state.id);
        if self.found(key, &by).await? {
            return Ok(());
        }
        let layer = self.job.blocking(move |job| make(job, &layers, &plan)).await?;
        self.made(key, by, layer)
    }

    async fn tree(&self, copy: &Copy) -> Result<Tree, Error> {
        let Some(from) = &copy.from else {
            return Ok(Tree::Context(self.job.context.clone()));
        };
        if let Some(stage) = self.job.graph.stage_called(from, self.at)? {
            let state = self.job.stage(stage, &self.report).await?;
            return Ok(Tree::Layers(state.pins));
        }
        let image = self.job.image(from, "", &self.report).await;
        let image = image.map_err(|error| {
            if let Error::NotFound(why) = &error {
                return Error::NotFound(format!("invalid from flag value {from}: {why}"));
            }
            error
        })?;
        let args = self.job.graph.args.of_stage();
        let state = super::state::State::of_image(&self.job.builder.store, &image, args)?;
        Ok(Tree::Layers(state.pins))
    }

    async fn fetch(&self, copy: &Copy, name: &str) -> Result<Vec<Option<Fetched>>, Error> {
        let mut all = Vec::new();
        for source in &copy.sources {
            let url = match source {
                Source::Path(path) if name == "ADD" && fetch::is_url(path) => path,
                Source::Path(_) | Source::Heredoc(_) => {
                    all.push(None);
                    continue;
                }
            };
            let private = self.job.request.private_addresses;
            let fetched = fetch::fetch(&self.job.builder.store, url, private, &self.job.cancel);
            let fetched = fetched.await.map_err(|error| failed(name, error))?;
            if let Some(expected) = &copy.checksum {
                fetched.check(expected)?;
            }
            all.push(Some(fetched));
        }
        Ok(all)
    }

    pub(super) async fn work_directory(&mut self, path: &str) -> Result<(), Error> {
        let config = &mut self.state.config.config;
        let path = absolute(&config.working_dir, path);
        let key = Key::of("workdir").and(&path).over(self.state.id);
        config.working_dir.clone_from(&path);
        let by = self.state.nop(&format!("WORKDIR {path}"));
        if self.found(key, &by).await? {
            return Ok(());
        }
        let layers = self.state.layers();
        let layer = self.job.blocking(move |job| {
            let draft = job.builder.store.draft(&layers)?;
            let made = files::make_directory(draft.root(), inside(&path), Owner::default());
            let not = |_| Error::Invalid(format!("Cannot mkdir: {path} is not a directory"));
            drop(made.map_err(not)?);
            Ok(draft.finish().publish()?.map(Arc::new))
        });
        let layer = layer.await?;
        self.made(key, by, layer)
    }
}

fn failed(name: &str, error: Error) -> Error {
    if let Error::Invalid(why) = &error {
        return Error::Invalid(format!("{name} failed: {why}"));
    }
    error
}

/// A relative path continues the last one; `..` goes up, never out.
pub(super) fn absolute(last: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let last = if path.starts_with('/') { "" } else { last };
    for part in last.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn inside(path: &str) -> &Path {
    Path::new(path.trim_start_matches('/'))
}

fn plan(
    job: &Job,
    tree: Tree,
    fetched: Vec<Option<Fetched>>,
    (copy, name): (Copy, &'static str),
    work_directory: String,
) -> Result<Plan, Error> {
    let context = matches!(tree, Tree::Context(_));
    let open = match tree {
        Tree::Context(context) => Open::Context(context),
        Tree::Layers(pins) => {
            let layers: Vec<Digest> = pins.iter().map(|pin| pin.digest()).collect();
            Open::Layers(job.builder.store.view(&layers)?)
        }
    };
    let exclude = Ignore::of(&copy.exclude).map_err(Error::Invalid)?;
    let mut items = Vec::new();
    for (source, fetched) in copy.sources.iter().zip(fetched) {
        match (source, fetched) {
            (_, Some(fetched)) => items.push(Item::Fetched(fetched)),
            (Source::Heredoc(document), None) => items.push(Item::Document(document.clone())),
            (Source::Path(path), None) => {
                let found = files::find(open.root(), path, &exclude, context);
                items.extend(found.map_err(|error| failed(name, error))?.into_iter().map(
                    |found| {
                        let below =
                            if copy.parents { parents(path, &found) } else { PathBuf::new() };
                        Item::File(found, below)
                    },
                ));
            }
        }
    }
    if items.is_empty() {
        return Err(Error::Invalid(format!("{name} failed: no source files were specified")));
    }
    if items.len() > 1 && !names_directory(&copy.to) {
        return Err(Error::Invalid(format!(
            "When using {name} with more than one source file, the destination must be a directory \
             and end with a /"
        )));
    }
    Ok(Plan { copy, name, open, items, exclude, work_directory })
}

fn names_directory(to: &str) -> bool {
    to.ends_with('/') || to == "." || to == ".." || to.ends_with("/.") || to.ends_with("/..")
}

fn make(job: &Job, layers: &[Digest], plan: &Plan) -> Result<Option<Arc<Pin>>, Error> {
    let draft = job.builder.store.draft(layers)?;
    let root = draft.root();
    let owner = Owner {
        mode: plan.copy.chmod.as_deref().map(mode).transpose()?,
        ..plan.copy.chown.as_deref().map_or(Ok(Owner::default()), |chown| owner(root, chown))?
    };
    let to = absolute(&plan.work_directory, &plan.copy.to);
    for item in &plan.items {
        if job.cancel.is_cancelled() {
            return Err(super::report::cancelled());
        }
        let below = match item {
            Item::File(_, below) => below.as_path(),
            Item::Document(_) | Item::Fetched(_) => Path::new(""),
        };
        let to = inside(&to).join(below);
        let into = names_directory(&plan.copy.to) || plan.copy.parents;
        put(plan, item, &Put { root, to: &to, into, owner })?;
    }
    Ok(draft.finish().publish()?.map(Arc::new))
}

fn put(plan: &Plan, item: &Item, put: &Put<'_>) -> Result<(), Error> {
    match item {
        Item::Document(document) => files::put_text(&document.content(), &document.name, put),
        Item::Fetched(fetched) => fetched.put(put),
        Item::File(found, _) => {
            let from = plan.open.root();
            if plan.name == "ADD" && !found.is_directory && is_archive(file(from, &found.path)?) {
                return extract(from, &found.path, put);
            }
            files::copy(from, &found.path, &plan.exclude, put)
        }
    }
}

/// `COPY --parents a/./b/c /to/`: what stands between the pivot and the file
/// is made in the target too.
fn parents(source: &str, found: &Found) -> PathBuf {
    let pivot = source.trim_start_matches('/').split_once("/./").map(|(head, _)| head);
    let rest = pivot.and_then(|head| found.path.strip_prefix(head).ok()).unwrap_or(&found.path);
    match found.is_directory {
        true => rest.to_owned(),
        false => rest.parent().unwrap_or(Path::new("")).to_owned(),
    }
}

fn file(root: &OwnedFd, path: &Path) -> Result<File, Error> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(files::open(root, path, flags).map_err(files::failed("open", path))?))
}

/// Whether it is a tar archive, compressed or not, by what is in it.
pub(super) fn is_archive(file: File) -> bool {
    let Ok(plain) = archive::decompress(file) else { return false };
    let mut archive = tar::Archive::new(plain);
    let Ok(mut entries) = archive.entries() else { return false };
    // Its checksum is right, or this is something else.
    matches!(entries.next(), Some(Ok(_)))
}

/// The archive says who owns what.
fn extract(from: &OwnedFd, path: &Path, put: &Put<'_>) -> Result<(), Error> {
    let directory = files::make_directory(put.root, put.to, Owner::default())?;
    drop(directory);
    let root = put.root.as_fd().try_clone_to_owned();
    let root = root.map_err(|error| Error::internal("cannot open the layer", error))?;
    let owner = Some((put.owner.uid, put.owner.gid)).filter(|owner| *owner != (0, 0));
    let how = archive::unpack::Extract { owner, ..archive::unpack::Extract::default() };
    let done = archive::unpack::extract(file(from, path)?, root, put.to, how);
    done.map(drop).map_err(|error| Error::Invalid(format!("failed to copy files: {error}")))
}

/// `--chmod=755`.
fn mode(text: &str) -> Result<u32, Error> {
    let bad = || {
        Error::Invalid(format!(
            "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
        ))
    };
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(bad)
}

/// `--chown=user:group`, by number or by the names that the image knows.
fn owner(root: &OwnedFd, chown: &str) -> Result<Owner, Error> {
    let (user, group) = chown.split_once(':').unwrap_or((chown, chown));
    let uid = number(root, user, ("etc/passwd", "user", "uid"))?;
    let gid = number(root, group, ("etc/group", "group", "gid"))?;
    Ok(Owner { uid, gid, mode: None })
}

fn number(root: &OwnedFd, name: &str, (path, what, id): (&str, &str, &str)) -> Result<u32, Error> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let mut text = String::new();
    if let Ok(file) = file(root, Path::new(path)) {
        // What is not text has no names.
        drop(file.take(NAMES).read_to_string(&mut text));
    }
    let named = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let number = named.into_iter().find(|fields| fields.first() == Some(&name));
    number.and_then(|fields| fields.get(2)?.parse().ok()).ok_or_else(|| {
        Error::Invalid(format!(
            "unable to convert uid/gid chown string to host mapping: can't find {id} for {what} \
             {name}: no such {what}: {name}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_continues_the_last_one_and_never_leaves_the_root() {
        for (last, path, expected) in [
            ("", "a", "/a"),
            ("/a", "b/../c", "/a/c"),
            ("/a", "/b/", "/b"),
            ("/a", "../../..", "/"),
            ("", ".", "/"),
        ] {
            assert_eq!(absolute(last, path), expected);
        }
    }

    #[test]
    fn a_mode_is_octal() {
        assert_eq!(mode("4755").unwrap(), 0o4755);
        for bad in ["", "9", "u+x", "77777"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }
}
