//! Loads, attaches and pins: the only file that names the programs.
//!
//! Below the pin directory stand `guard-KEY` (links), `guard-maps-LAYOUT` and
//! `trace-KEY` (maps and links). KEY is made of the object, the engine's cgroup and its
//! level; so links of the same KEY are as good as new ones and are taken over, and others
//! are dropped only after the new ones are in force. Maps of the guard outlive a new build as
//! long as their layout is the same.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    pin::PinError,
    programs::{Lsm, Program, ProgramError, SchedClassifier, links::FdLink},
};
use tritium_sys::bpf::{CgroupHook, link_cgroup};

use crate::{
    Verdict,
    btf::Types,
    wire::{self, Wire, WireFault},
};

/// The kernel side; empty when built with `AYA_BUILD_SKIP`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("TRITIUM_BPF_OBJECT"));

/// What is lost without a program that leads to resolvers.
const NO_LEADING: &str = "containers with a resolver cannot listen on port 53 of all addresses";

/// Programs of the guard, what each needs, and what is lost without it.
const GUARD: [(&str, &str, &str); 18] = [
    (
        "guard_device",
        "cgroup device program",
        "devices are only as closed as the runtime makes them",
    ),
    (
        "guard_socket",
        "cgroup sock_create program",
        "raw sockets are open to whoever has CAP_NET_RAW",
    ),
    (
        "guard_sysctl",
        "cgroup sysctl program",
        "sysctls are only as closed as /proc/sys is read-only",
    ),
    (
        "guard_connect4",
        "cgroup connect4 program",
        "tenants' connections are stopped packet by packet only",
    ),
    (
        "guard_connect6",
        "cgroup connect6 program",
        "tenants' connections are stopped packet by packet only",
    ),
    (
        "guard_sendmsg4",
        "cgroup sendmsg4 program",
        "tenants' datagrams are stopped packet by packet only",
    ),
    (
        "guard_sendmsg6",
        "cgroup sendmsg6 program",
        "tenants' datagrams are stopped packet by packet only",
    ),
    (
        "guard_egress",
        "cgroup skb egress program",
        "tenants on one host network can reach each other",
    ),
    (
        "guard_ingress",
        "cgroup skb ingress program",
        "translated packets of other tenants come through",
    ),
    ("names_recvmsg4", "cgroup recvmsg4 program", NO_LEADING),
    ("names_recvmsg6", "cgroup recvmsg6 program", NO_LEADING),
    ("names_getpeername4", "cgroup getpeername4 program", NO_LEADING),
    ("names_getpeername6", "cgroup getpeername6 program", NO_LEADING),
    (
        "lsm_exec",
        "BPF LSM, bprm_check_security",
        "no file is denied to a tenant, memfds can be executed",
    ),
    (
        "lsm_ptrace",
        "BPF LSM, ptrace_access_check",
        "ptrace is only as closed as namespaces and capabilities make it",
    ),
    ("lsm_socket", "BPF LSM, socket_create", "packet sockets are the runtime's to refuse"),
    (
        "count_tcp",
        "cgroup sockops program",
        "connections, segments sent again and round-trip times are not counted",
    ),
    (
        WIRE,
        "tc program, classifier bpf",
        "who has a raw socket can send in the name of others on the same network",
    ),
];

/// The one that hangs on interfaces.
const WIRE: &str = "guard_wire";

/// Programs of the trace, in the order they are attached: what keeps stamps
/// truthful comes before what makes them.
const TRACE: [(&str, &str); 5] = [
    ("trace_task_exit", "sched_process_exit"),
    ("trace_exec", "sched_process_exec"),
    ("trace_move", "cgroup_attach_task"),
    ("trace_exit", "sys_exit"),
    ("trace_enter", "sys_enter"),
];

const GUARD_MAPS: [&str; 15] = [
    "CONTAINERS",
    "LABELS",
    "ADDRESSES",
    "SHARED",
    "BINDINGS",
    "PEERS",
    "CHANGES",
    "RESOLVERS",
    "DEVICES",
    "EXEC_DENIED",
    "DENIALS",
    "DENIED",
    "TRAFFIC",
    "RTTS",
    "OVERFLOW",
];
const TRACE_MAPS: [&str; 8] =
    ["WATCHES", "TASKS", "STATE", "WATCHED", "ROWS", "FREE_ROWS", "ROW_OWNERS", "ERRORS"];

/// Members whose offsets the programs know by a global named `STRUCT__MEMBER`.
const OFFSETS: [(&str, &str, &str); 14] = [
    ("PT_REGS__CS", "pt_regs", "cs"),
    ("TASK_STRUCT__CGROUPS", "task_struct", "cgroups"),
    ("CSS_SET__DFL_CGRP", "css_set", "dfl_cgrp"),
    ("CGROUP__LEVEL", "cgroup", "level"),
    ("CGROUP__ANCESTORS", "cgroup", "ancestors"),
    ("CGROUP__KN", "cgroup", "kn"),
    ("KERNFS_NODE__ID", "kernfs_node", "id"),
    ("LINUX_BINPRM__FILE", "linux_binprm", "file"),
    ("FILE__F_INODE", "file", "f_inode"),
    ("INODE__I_INO", "inode", "i_ino"),
    ("INODE__I_NLINK", "inode", "i_nlink"),
    ("INODE__I_SB", "inode", "i_sb"),
    ("SUPER_BLOCK__S_DEV", "super_block", "s_dev"),
    ("SOCK__SK_CGRP_DATA", "sock", "sk_cgrp_data"),
];

/// Why the kernel side is not where it should be.
#[derive(Debug, thiserror::Error)]
pub enum Load {
    /// `AYA_BUILD_SKIP` was set.
    #[error("this binary was built without its kernel side")]
    NotBuilt,
    /// The kernel has no type information.
    #[error("cannot load BPF programs without the kernel's types")]
    Types(#[from] crate::btf::ReadTypes),
    /// aya could not read the kernel's type information.
    #[error("cannot read the kernel's types")]
    Btf(#[source] aya::BtfError),
    /// The object or its maps were refused.
    #[error("cannot load the BPF object")]
    Object(#[source] Box<aya::EbpfError>),
    /// One program was refused.
    #[error("cannot load and attach {program}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What the kernel said.
        source: Box<ProgramError>,
    },
    /// One program could not be attached to the engine's cgroup.
    #[error("cannot attach {program}")]
    Link {
        /// Its name.
        program: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A pin could not be made.
    #[error("cannot pin {}", path.display())]
    Pin {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: PinError,
    },
    /// A file could not be made, opened or removed.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The program for interfaces could not be hung on one.
    #[error("cannot use {WIRE}")]
    Wire(#[from] WireFault),
    /// A map that the object must have is missing, or is of another kind.
    #[error("the BPF object's map {0} is not as expected")]
    Map(&'static str),
    /// What the programs remember could not be made old.
    #[error("cannot tell the programs that something has changed")]
    Change(#[source] aya::maps::MapError),
}

/// Where everything goes.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The engine's cgroup directory.
    pub(crate) cgroup: PathBuf,
    /// Its id.
    pub(crate) cgroup_id: u64,
    /// Level of the containers' cgroups.
    pub(crate) level: u32,
    /// Directory of pins.
    pub(crate) pins: PathBuf,
    /// Rows of the trace.
    pub(crate) trace_rows: u32,
}

impl Place {
    fn key(&self) -> String {
        format!("{}-{:x}-{}", env!("TRITIUM_BPF_BUILD"), self.cgroup_id, self.level)
    }

    pub(crate) fn guard_links(&self) -> PathBuf {
        self.pins.join(format!("guard-{}", self.key()))
    }

    fn guard_maps(&self) -> PathBuf {
        self.pins.join(concat!("guard-maps-", env!("TRITIUM_BPF_LAYOUT")))
    }

    pub(crate) fn trace_pins(&self) -> PathBuf {
        self.pins.join(format!("trace-{}", self.key()))
    }

    /// Removes the pins of other builds: their programs are detached with that.
    pub(crate) fn drop_others(&self) -> Result<(), Load> {
        let ours = [self.guard_links(), self.guard_maps(), self.trace_pins()];
        for entry in list(&self.pins)? {
            if !ours.contains(&entry) {
                remove_all(&entry)?;
            }
        }
        Ok(())
    }
}

/// Copies of each row: as many as CPUs, but no more than eight.
pub(crate) fn shards() -> u32 {
    let cpus = aya::util::nr_cpus().unwrap_or(1);
    u32::try_from(cpus.next_power_of_two()).unwrap_or(8).min(8)
}

/// Entries of the tasks' map: every pid its own where there are few enough.
fn task_entries() -> u32 {
    let most = fs::read_to_string("/proc/sys/kernel/pid_max")
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
        .unwrap_or(u32::MAX);
    most.min(131_072).next_power_of_two()
}

/// Loads the object with the maps of one half at full size and pinned in `pins`.
fn load_object(
    place: &Place,
    maps: &[&'static str],
    pins: Option<&Path>,
) -> Result<(Ebpf, Btf), Load> {
    if OBJECT.is_empty() {
        return Err(Load::NotBuilt);
    }
    let structs: Vec<&'static str> = OFFSETS.iter().map(|(_, name, _)| *name).collect();
    let types = Types::of_kernel(&structs)?;
    // A member this kernel lacks stays 0: the programs that need it are of a kind it lacks as well.
    let offsets =
        OFFSETS.map(|(global, name, member)| (global, types.offset(name, member).unwrap_or(0)));
    let btf = Btf::from_sys_fs().map_err(Load::Btf)?;
    let (tasks, shards) = (task_entries(), shards());
    let (task_mask, shard_mask) = (tasks - 1, shards - 1);
    let direct = u32::from(counts_what_is_redirected());
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&btf));
    for (global, offset) in &offsets {
        loader.override_global(global, offset, true);
    }
    loader.override_global("CONTAINER_LEVEL", &place.level, true);
    loader.override_global("ENGINE_CGROUP", &place.cgroup_id, true);
    loader.override_global("TASK_MASK", &task_mask, true);
    loader.override_global("SHARD_MASK", &shard_mask, true);
    loader.override_global("DIRECT", &direct, true);
    loader.map_max_entries("TASKS", tasks);
    loader.map_max_entries("ROWS", (place.trace_rows + 1) * shards);
    loader.map_max_entries("FREE_ROWS", place.trace_rows);
    loader.map_max_entries("ROW_OWNERS", place.trace_rows);
    for map in GUARD_MAPS.iter().chain(&TRACE_MAPS) {
        if !maps.contains(map) {
            loader.map_max_entries(map, if *map == "DENIED" { 4096 } else { 1 });
        } else if let Some(pins) = pins {
            loader.map_pin_path(map, pins.join(map));
        }
    }
    let object = loader.load(OBJECT).map_err(|error| Load::Object(Box::new(error)))?;
    drop(loader);
    Ok((object, btf))
}

/// Whether an interface counts what bpf_redirect_peer puts into it: since Linux 6.8
/// (`NETDEV_PCPU_STAT_TSTATS` of drivers/net/veth.c). Before, a container would seem to receive
/// nothing, so there everything goes over the bridge.
fn counts_what_is_redirected() -> bool {
    let Ok(names) = nix::sys::utsname::uname() else { return false };
    let release = names.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 8)
}

/// Maps of the guard, pinned: those that are there already, or new ones.
pub(crate) struct GuardObject {
    object: Ebpf,
    btf: Btf,
}

impl GuardObject {
    pub(crate) fn load(place: &Place) -> Result<Self, Load> {
        let pins = place.guard_maps();
        make_directory(&pins)?;
        let (object, btf) = load_object(place, &GUARD_MAPS, Some(&pins))?;
        Ok(Self { object, btf })
    }

    pub(crate) fn take(&mut self, map: &'static str) -> Result<aya::maps::Map, Load> {
        self.object.take_map(map).ok_or(Load::Map(map))
    }

    /// Puts every program in force that this kernel takes, and tells which
    /// they are. Programs that are in force already stay.
    pub(crate) fn attach(&mut self, place: &Place) -> Result<Vec<Verdict>, Load> {
        let links = place.guard_links();
        make_directory(&links)?;
        let mut verdicts = Vec::new();
        for (program, need, loss) in GUARD {
            let pin = links.join(program);
            let refused =
                if pin.exists() { None } else { self.attach_one(place, program, &pin).err() };
            verdicts.push(Verdict {
                need: need.to_owned(),
                have: refused.is_none(),
                cost: refused
                    .map_or_else(String::new, |why| format!("{loss} ({})", root_cause(&why))),
            });
        }
        Ok(verdicts)
    }

    fn attach_one(&mut self, place: &Place, program: &'static str, pin: &Path) -> Result<(), Load> {
        let cgroup = open_directory(&place.cgroup)?;
        let loaded = self.object.program_mut(program).ok_or(Load::Map(program))?;
        if let Program::SchedClassifier(loaded) = loaded {
            return load_wire(loaded, pin);
        }
        attach(loaded, program, &cgroup, &self.btf, pin)
    }
}

/// Loads the program that hangs on interfaces; it is pinned if this kernel lets it hang there.
fn load_wire(program: &mut SchedClassifier, pin: &Path) -> Result<(), Load> {
    let refused = |source: ProgramError| Load::Program { program: WIRE, source: Box::new(source) };
    program.load().map_err(refused)?;
    wire::try_out(program)?;
    program.pin(pin).map_err(|source| Load::Pin { path: pin.to_owned(), source })
}

/// The program that hangs on interfaces, where the kernel takes it.
pub(crate) fn wire(place: &Place) -> Result<Option<Wire>, Load> {
    let pin = place.guard_links().join(WIRE);
    if !pin.exists() {
        return Ok(None);
    }
    let program = SchedClassifier::from_pin(&pin)
        .map_err(|source| Load::Program { program: WIRE, source: Box::new(source) })?;
    Ok(Some(Wire::new(program)?))
}

/// Loads one program of the guard, attaches it and pins its link.
fn attach(
    program: &mut Program,
    name: &'static str,
    cgroup: &File,
    btf: &Btf,
    pin: &Path,
) -> Result<(), Load> {
    let refused = |source: ProgramError| Load::Program { program: name, source: Box::new(source) };
    #[expect(clippy::wildcard_enum_match_arm, reason = "the object holds only these kinds")]
    let fd = match program {
        Program::CgroupSkb(program) => program.load().and_then(|()| program.fd()),
        Program::CgroupSockAddr(program) => program.load().and_then(|()| program.fd()),
        Program::CgroupSock(program) => program.load().and_then(|()| program.fd()),
        Program::SockOps(program) => program.load().and_then(|()| program.fd()),
        Program::CgroupDevice(program) => program.load().and_then(|()| program.fd()),
        Program::CgroupSysctl(program) => program.load().and_then(|()| program.fd()),
        Program::Lsm(program) => return attach_lsm(program, name, btf, pin),
        _ => return Err(Load::Map(name)),
    };
    let fd = fd.map_err(refused)?.as_fd();
    let hook = hook_of(name).ok_or(Load::Map(name))?;
    let link = link_cgroup(fd, cgroup.as_fd(), hook)
        .map_err(|source| Load::Link { program: name, source })?;
    // The descriptor is closed on return; the pin keeps the program attached.
    tritium_sys::bpf::pin(link.as_fd(), pin).map_err(|source| Load::File {
        doing: "pin",
        path: pin.to_owned(),
        source,
    })
}

fn hook_of(program: &str) -> Option<CgroupHook> {
    Some(match program {
        "guard_device" => CgroupHook::Device,
        "guard_socket" => CgroupHook::SockCreate,
        "guard_sysctl" => CgroupHook::Sysctl,
        "guard_connect4" => CgroupHook::Connect4,
        "guard_connect6" => CgroupHook::Connect6,
        "guard_sendmsg4" => CgroupHook::Sendmsg4,
        "guard_sendmsg6" => CgroupHook::Sendmsg6,
        "names_recvmsg4" => CgroupHook::Recvmsg4,
        "names_recvmsg6" => CgroupHook::Recvmsg6,
        "names_getpeername4" => CgroupHook::Getpeername4,
        "names_getpeername6" => CgroupHook::Getpeername6,
        "guard_egress" => CgroupHook::Egress,
        "guard_ingress" => CgroupHook::Ingress,
        "count_tcp" => CgroupHook::SockOps,
        _ => return None,
    })
}

fn attach_lsm(program: &mut Lsm, name: &'static str, btf: &Btf, pin: &Path) -> Result<(), Load> {
    let refused = |source: ProgramError| Load::Program { program: name, source: Box::new(source) };
    let hook = match name {
        "lsm_exec" => "bprm_check_security",
        "lsm_ptrace" => "ptrace_access_check",
        _ => "socket_create",
    };
    program.load(hook, btf).map_err(refused)?;
    let link = program.attach().map_err(refused)?;
    pin_link(program.take_link(link).map_err(refused)?.into(), pin)
}

/// The trace's programs and maps.
pub(crate) struct TraceObject {
    object: Ebpf,
    btf: Btf,
}

impl TraceObject {
    /// Makes the maps, or opens the ones that are pinned already.
    pub(crate) fn load(place: &Place) -> Result<Self, Load> {
        let pins = place.trace_pins();
        make_directory(&pins)?;
        let (object, btf) = load_object(place, &TRACE_MAPS, Some(&pins))?;
        Ok(Self { object, btf })
    }

    /// Whether this kernel takes the programs, without attaching them.
    pub(crate) fn check(place: &Place) -> Result<(), Load> {
        let place = Place { trace_rows: 1, ..place.clone() };
        let (object, btf) = load_object(&place, &[], None)?;
        let mut this = Self { object, btf };
        for (program, tracepoint) in TRACE {
            this.load_one(program, tracepoint)?;
        }
        Ok(())
    }

    pub(crate) fn take(&mut self, map: &'static str) -> Result<aya::maps::Map, Load> {
        self.object.take_map(map).ok_or(Load::Map(map))
    }

    /// Attaches what is not attached yet. To be called after the maps are filled.
    pub(crate) fn attach(&mut self, place: &Place) -> Result<(), Load> {
        for (program, tracepoint) in TRACE {
            let pin = place.trace_pins().join(program);
            if pin.exists() {
                continue;
            }
            let refused =
                |source: ProgramError| Load::Program { program, source: Box::new(source) };
            let loaded = self.load_one(program, tracepoint)?;
            let link = loaded.attach().map_err(refused)?;
            pin_link(loaded.take_link(link).map_err(refused)?.into(), &pin)?;
        }
        Ok(())
    }

    fn load_one(
        &mut self,
        program: &'static str,
        tracepoint: &str,
    ) -> Result<&mut aya::programs::BtfTracePoint, Load> {
        let refused = |source: ProgramError| Load::Program { program, source: Box::new(source) };
        let loaded: &mut aya::programs::BtfTracePoint = self
            .object
            .program_mut(program)
            .ok_or(Load::Map(program))?
            .try_into()
            .map_err(refused)?;
        loaded.load(tracepoint, &self.btf).map_err(refused)?;
        Ok(loaded)
    }
}

/// Whether a trace of this build is attached, left by an earlier engine.
pub(crate) fn trace_is_pinned(place: &Place) -> bool {
    TRACE.iter().all(|(program, _)| place.trace_pins().join(program).exists())
}

fn pin_link(link: FdLink, pin: &Path) -> Result<(), Load> {
    // The descriptor is closed with the value; the pin keeps the program attached.
    link.pin(pin).map(drop).map_err(|source| Load::Pin { path: pin.to_owned(), source })
}

fn make_directory(path: &Path) -> Result<(), Load> {
    fs::create_dir_all(path).map_err(|source| Load::File {
        doing: "make",
        path: path.to_owned(),
        source,
    })
}

fn open_directory(path: &Path) -> Result<File, Load> {
    File::open(path).map_err(|source| Load::File { doing: "open", path: path.to_owned(), source })
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, Load> {
    let failed = |source| Load::File { doing: "list", path: directory.to_owned(), source };
    fs::read_dir(directory)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
        .collect()
}

/// Removes a directory of pins; links that are pinned nowhere else are detached with it.
pub(crate) fn remove_all(path: &Path) -> Result<(), Load> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Load::File { doing: "remove", path: path.to_owned(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The innermost error's words, on one line: what the kernel said, and the verifier.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    let mut verifier = None;
    while let Some(source) = inner.source() {
        // The verifier's log is in the middle of the chain.
        let text = inner.to_string();
        verifier = text.split_once("Verifier output: ").map(|(_, log)| log.to_owned()).or(verifier);
        inner = source;
    }
    let said = inner.to_string();
    let reason = verifier.as_deref().and_then(verifiers_reason);
    reason.map_or_else(|| said.clone(), |reason| format!("{said}: {reason}"))
}

/// The last line of the verifier's log that is not its statistics.
fn verifiers_reason(log: &str) -> Option<&str> {
    let statistics = ["processed ", "verification time ", "stack depth "];
    log.lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty() && !statistics.iter().any(|s| line.starts_with(s)))
}
