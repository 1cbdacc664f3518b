//! Sockets in other network namespaces, made from one thread.

use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    io,
    marker::PhantomData,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

/// The network namespace that this thread belongs to; it goes nowhere else.
#[derive(Debug)]
pub(super) struct Home {
    netns: OwnedFd,
    here: PhantomData<Rc<()>>,
}

impl Home {
    /// The calling thread's.
    pub(super) fn of_this_thread() -> io::Result<Self> {
        let netns = File::open("/proc/thread-self/ns/net")?.into();
        Ok(Self { netns, here: PhantomData })
    }

    /// Does something with the thread in another namespace. Nothing else runs
    /// on this thread meanwhile, for `what` cannot wait for anything.
    ///
    /// # Panics
    /// If the thread cannot come back: it must not go on in the wrong place.
    pub(super) fn inside<T>(
        &self,
        netns: impl AsFd,
        what: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        let done = what();
        setns(&self.netns, CloneFlags::CLONE_NEWNET)
            .expect("we came from this namespace and hold it open");
        done
    }
}
