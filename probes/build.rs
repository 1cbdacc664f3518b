//! Builds the kernel side from `ebpf/` for the target bpfel, to be embedded.
//!
//! `AYA_BUILD_SKIP=1` leaves it out, for checks on machines without the BPF toolchain: the probes
//! then say at start that they were built without a kernel side.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

fn main() -> Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..");
    let object = PathBuf::from(env::var("OUT_DIR")?).join("tritium.bpf.o");
    for watched in
        ["ebpf/src", "ebpf/common", "ebpf/Cargo.toml", "ebpf/Cargo.lock", ".ci/bpf-toolchain"]
    {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    println!("cargo::rerun-if-env-changed=AYA_BUILD_SKIP");
    if env::var("AYA_BUILD_SKIP").is_ok_and(|skip| skip != "0") {
        fs::File::create(&object)?;
    } else {
        build(&root, &object)?;
    }
    println!("cargo::rustc-env=TRITIUM_BPF_OBJECT={}", object.display());
    println!("cargo::rustc-env=TRITIUM_BPF_BUILD={}", hash(&[&object])?);
    println!("cargo::rustc-env=TRITIUM_BPF_LAYOUT={}", hash(&layout(&root)?)?);
    Ok(())
}

fn build(root: &Path, object: &Path) -> Result<()> {
    let script = root.join(".ci/bpf-toolchain");
    let status = Command::new(&script)
        .arg("build")
        .arg(root.join("ebpf"))
        .arg(object)
        // Cargo's and clippy's own variables are for the host's build, not for this one.
        .env_remove("RUSTC")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .with_context(|| format!("cannot run {}", script.display()))?;
    ensure!(status.success(), "{} build: {status}", script.display());
    Ok(())
}

/// The sources that decide what is in the maps.
fn layout(root: &Path) -> Result<Vec<PathBuf>> {
    let common = root.join("ebpf/common/src");
    let mut files = vec![root.join("ebpf/src/maps.rs")];
    for entry in
        fs::read_dir(&common).with_context(|| format!("cannot list {}", common.display()))?
    {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

fn hash(files: &[impl AsRef<Path>]) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for file in files {
        let file = file.as_ref();
        fs::read(file)
            .with_context(|| format!("cannot read {}", file.display()))?
            .hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}
