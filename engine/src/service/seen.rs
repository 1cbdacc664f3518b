//! What the rooms below show, for `api` to shape: it knows them by this list only.

pub use crate::{
    build::{CacheUse, Event as BuildEvent, Prune as BuildPrune, Request as BuildRequest},
    container::{
        AttachOptions, Attachment, EndpointRecord, ExecHandle, ExecRequest, ExecSnapshot,
        ExecStart, Extraction, Handle, Health, HealthStatus, Input, LogOptions, MountPoint, Output,
        PathStat, Probe, Record, RemoveOptions, Sample, Snapshot, State, Top, Update,
        WaitCondition, WaitOutcome,
    },
    image::{
        Auth, Distribution, Found as FoundImage, Image, Import, Message, Platform, Progress,
        Reference, Removal, Removed,
    },
    network::{AddressPool, Definition, Driver, Endpoint, Network, Proto, Published},
    runtime::{BlockUsage, Interface},
    storage::{ChangeKind, FileChange},
};
