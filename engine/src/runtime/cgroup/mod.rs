//! Control groups.

mod usage;
pub use usage::{BlockUsage, CpuUsage, MemoryUsage, Usage};
