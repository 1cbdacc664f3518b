//! How often does a container make each system call, how long do they take, and how do they fail?
//!
//! Entry stamps the task's own entry of `TASKS`; return turns the stamp into a
//! bucket of the call's row. Which container a task is in is looked up once and kept with the
//! stamp until `STATE.generation` moves, so that the cost for the unwatched is two array
//! look-ups. The other three programs keep that truthful: a task that dies
//! leaves no stamp behind, one that changes its number in execve takes it along, and one that
//! changes its cgroup is looked up anew.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tritium_common::{
    bucket,
    trace::{ErrorKey, NUMBERS, OTHER, Row, RowKey, Task, Watched},
};

use crate::{
    kernel,
    maps::{
        ERRORS, FREE_ROWS, PT_REGS__CS, ROW_OWNERS, ROWS, SHARD_MASK, STATE, TASK_MASK, TASKS,
        WATCHED, WATCHES,
    },
};

/// `__USER32_CS`: the code segment of 32-bit tasks on x86.
const CODE_32: u64 = 0x23;
/// Largest errno a system call may return, `MAX_ERRNO` of linux/err.h.
const MAX_ERRNO: i64 = 4095;
/// `BPF_NOEXIST` of linux/bpf.h.
const NO_EXIST: u64 = 1;

#[btf_tracepoint(function = "sys_enter")]
pub(crate) fn trace_enter(ctx: BtfTracePointContext) -> i32 {
    let pid = kernel::current_thread();
    let Some(task) = task_of(pid) else { return 0 };
    let Some(generation) = generation() else { return 0 };
    // SAFETY: `task` points to a value of TASKS; only this task writes it, or, in
    // `claim`, another one that finds it in no call.
    let task = unsafe { &mut *task };
    if (task.pid != pid || task.generation != generation) && !claim(task, pid, generation) {
        return 0;
    }
    if task.slot == 0 {
        return 0;
    }
    task.number = number(&ctx);
    task.entered = kernel::now();
    0
}

#[btf_tracepoint(function = "sys_exit")]
pub(crate) fn trace_exit(ctx: BtfTracePointContext) -> i32 {
    let pid = kernel::current_thread();
    let Some(task) = task_of(pid) else { return 0 };
    let Some(generation) = generation() else { return 0 };
    // SAFETY: as in `trace_enter`.
    let task = unsafe { &mut *task };
    let (before, entered) = (task.slot, task.entered);
    let mine = task.pid == pid;
    if (!mine || task.generation != generation) && !claim(task, pid, generation) {
        return 0;
    }
    let slot = task.slot;
    if slot == 0 {
        return 0;
    }
    let Some(watched) = WATCHED.get_ptr_mut(slot) else { return 0 };
    task.entered = 0;
    if !mine || entered == 0 || before != slot {
        // SAFETY: `watched` points to a value of the map.
        unsafe { kernel::add(&raw mut (*watched).unpaired, 1) };
        return 0;
    }
    let nanos = kernel::now().wrapping_sub(entered);
    record(watched, slot, task.number, nanos);
    let returned: i64 = ctx.arg(1);
    if (-MAX_ERRNO..0).contains(&returned) {
        fail(watched, slot, task.number, (-returned) as u16);
    }
    0
}

/// A task that dies leaves nothing: its number may be given to another one.
#[btf_tracepoint(function = "sched_process_exit")]
pub(crate) fn trace_task_exit(_ctx: BtfTracePointContext) -> i32 {
    let pid = kernel::current_thread();
    if let Some(task) = task_of(pid) {
        // SAFETY: as in `trace_enter`.
        let task = unsafe { &mut *task };
        if task.pid == pid {
            task.entered = 0;
            task.pid = 0;
        }
    }
    0
}

/// A thread that calls execve takes its process's number; the stamp goes with it.
#[btf_tracepoint(function = "sched_process_exec")]
pub(crate) fn trace_exec(ctx: BtfTracePointContext) -> i32 {
    let (pid, old): (u32, u32) = (kernel::current_thread(), ctx.arg(1));
    if pid == old {
        return 0;
    }
    let (Some(from), Some(to)) = (task_of(old), task_of(pid)) else { return 0 };
    // SAFETY: both point to values of TASKS; the thread that had the number
    // `old` is this one, and the one that had `pid` is dead.
    unsafe {
        if (*from).pid == old {
            *to = Task { pid, ..*from };
            (*from).entered = 0;
            (*from).pid = 0;
        }
    }
    0
}

/// Somebody moved to another cgroup: everybody looks anew.
#[btf_tracepoint(function = "cgroup_attach_task")]
pub(crate) fn trace_move(_ctx: BtfTracePointContext) -> i32 {
    if let Some(state) = STATE.get_ptr_mut(0) {
        // SAFETY: `state` points to a value of the map.
        unsafe { kernel::add(&raw mut (*state).generation, 1) };
    }
    0
}

#[inline(always)]
fn task_of(pid: u32) -> Option<*mut Task> {
    TASKS.get_ptr_mut(pid & TASK_MASK.load())
}

#[inline(always)]
fn generation() -> Option<u32> {
    // Truncated: 2^32 moves within one watch of one sleeping task would be needed to be fooled.
    STATE.get(0).map(|state| state.generation as u32)
}

/// Makes the entry this task's and looks its container up. False where the entry belongs to
/// another task that is in a call: two numbers that are equal modulo the map's size.
#[inline(always)]
fn claim(task: &mut Task, pid: u32, generation: u32) -> bool {
    // SAFETY: the value is a plain number, replaced as a whole.
    let slot = unsafe { WATCHES.get(kernel::current_container()) }.copied().unwrap_or(0);
    if task.pid != pid {
        if task.pid != 0 && task.entered != 0 {
            lose(slot);
            return false;
        }
        task.entered = 0;
        task.pid = pid;
    }
    task.slot = slot;
    task.generation = generation;
    if slot == 0 {
        task.entered = 0;
    }
    true
}

#[inline(always)]
fn lose(slot: u32) {
    if slot != 0
        && let Some(watched) = WATCHED.get_ptr_mut(slot)
    {
        // SAFETY: `watched` points to a value of the map.
        unsafe { kernel::add(&raw mut (*watched).lost, 1) };
    }
}

/// The call's number; 32-bit calls have others of the same value, and are gathered under one.
#[inline(always)]
fn number(ctx: &BtfTracePointContext) -> u32 {
    let number: u64 = ctx.arg(1);
    let segment = PT_REGS__CS.load();
    if segment != 0 {
        let registers: *const u8 = ctx.arg(0);
        let code = registers.wrapping_add(segment as usize).cast::<u64>();
        // SAFETY: `registers` is the kernel's pt_regs, of which BTF told the offset.
        if unsafe { core::ptr::read_volatile(code) } & 0xffff == CODE_32 {
            return OTHER;
        }
    }
    if number < u64::from(OTHER) { number as u32 } else { OTHER }
}

/// Counts one call into its row.
#[inline(always)]
fn record(watched: *mut Watched, slot: u32, number: u32, nanos: u64) {
    let index = number as usize & (NUMBERS - 1);
    // SAFETY: `watched` points to a value of the map, and `index` is inside its array.
    let known = unsafe { core::ptr::read_volatile(&raw const (*watched).rows[index]) };
    let row = if known != 0 { Some(known) } else { new_row(watched, slot, number) };
    let copy = row.and_then(|row| {
        ROWS.get_ptr_mut(row * (SHARD_MASK.load() + 1) + (kernel::cpu() & SHARD_MASK.load()))
    });
    let Some(copy) = copy else {
        // SAFETY: `watched` points to a value of the map.
        unsafe { kernel::add(&raw mut (*watched).overflowed, 1) };
        return;
    };
    count(copy, nanos);
}

#[inline(always)]
fn count(row: *mut Row, nanos: u64) {
    let slot = kernel::modulo_512(bucket::slot_of(nanos));
    // SAFETY: `row` points to a value of the map, and `slot` is inside its array.
    unsafe {
        kernel::add(&raw mut (*row).nanos, nanos);
        kernel::add((&raw mut (*row).buckets).cast::<u64>().add(slot), 1);
    }
}

/// Takes a free row for a call seen for the first time. Where two CPUs do so
/// at once, the map of owners decides, and the other's row goes back.
#[inline(always)]
fn new_row(watched: *mut Watched, slot: u32, number: u32) -> Option<u32> {
    let key = RowKey { slot, number };
    let row = FREE_ROWS.pop().ok().flatten()?;
    let row = if ROW_OWNERS.insert(key, row, NO_EXIST).is_ok() {
        row
    } else {
        // Cannot fail: the stack is as deep as there are rows.
        let _full = FREE_ROWS.push(row, 0);
        // SAFETY: the value is a plain number, written once.
        *unsafe { ROW_OWNERS.get(key) }?
    };
    let index = number as usize & (NUMBERS - 1);
    // SAFETY: `watched` points to a value of the map, and `index` is inside its array.
    unsafe { core::ptr::write_volatile(&raw mut (*watched).rows[index], row) };
    Some(row)
}

/// Counts one failure.
#[inline(always)]
fn fail(watched: *mut Watched, slot: u32, number: u32, errno: u16) {
    let key = ErrorKey { slot, number: number as u16, errno };
    if let Some(count) = ERRORS.get_ptr_mut(key) {
        // SAFETY: `count` points to a value of the map.
        unsafe { kernel::add(count, 1) };
    } else if ERRORS.insert(key, 1, NO_EXIST).is_err() {
        // Another CPU was first, or the map is full.
        match ERRORS.get_ptr_mut(key) {
            // SAFETY: `count` points to a value of the map.
            Some(count) => unsafe { kernel::add(count, 1) },
            // SAFETY: `watched` points to a value of the map.
            None => unsafe { kernel::add(&raw mut (*watched).lost, 1) },
        }
    }
}
