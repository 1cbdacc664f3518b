//! What the rooms below show, for `api` to shape: it knows them by this list only.

pub use crate::{
    container::{
        AttachOptions, Attachment, EndpointRecord, ExecHandle, ExecRequest, ExecSnapshot,
        ExecStart, Extraction, Handle, Health, HealthStatus, Input, LogOptions, MountPoint, Output,
        PathStat, Probe, Record, Sample, Snapshot, State, Top, Update, WaitCondition, WaitOutcome,
    },
    image::{Auth, Image, Import, Message, Platform, Progress, Reference, Removal, Removed},
    network::{AddressPool, Definition, Driver, Endpoint, Network, Proto, Published},
    runtime::{BlockUsage, Interface},
    storage::{ChangeKind, FileChange},
};
