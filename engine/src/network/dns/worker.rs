//! The thread that all resolvers run on.

use super::{Served, SharedDirectory, forward::Forwarder, home::Home, server::serve};
use crate::ids::{ContainerId, TenantName};
use std::{
    collections::HashMap,
    io,
    rc::Rc,
    sync::{Arc, Weak, mpsc},
    thread,
};
use tokio::{
    runtime::Builder,
    sync::{
        Semaphore,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot,
    },
    task::{JoinSet, LocalSet},
};
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How many questions of one tenant may be outside at a time: each costs a
/// descriptor.
const AT_ONCE: usize = 512;

/// What the thread is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Serve { served: Served, reply: oneshot::Sender<io::Result<()>> },
    End(ContainerId),
    Stop,
}

/// Starts it. It ends when told to, or when the sender is dropped.
pub(super) fn spawn(
    directory: SharedDirectory,
    token: TaskTrackerToken,
) -> io::Result<UnboundedSender<Command>> {
    let (sender, commands) = unbounded_channel();
    let (ready, started) = mpsc::channel();
    thread::Builder::new().name("dns".into()).spawn(move || {
        let prepared = Builder::new_current_thread().enable_all().build();
        let prepared = prepared.and_then(|runtime| Ok((runtime, Home::of_this_thread()?)));
        match prepared {
            Ok((runtime, home)) => {
                // The caller waits for this.
                drop(ready.send(Ok(())));
                let worker = Worker::new(directory, home);
                LocalSet::new().block_on(&runtime, worker.work(commands));
            }
            Err(error) => drop(ready.send(Err(error))),
        }
        drop(token);
    })?;
    started.recv().map_err(io::Error::other)??;
    Ok(sender)
}

#[derive(Debug)]
struct Worker {
    directory: SharedDirectory,
    home: Rc<Home>,
    served: HashMap<ContainerId, JoinSet<()>>,
    tenants: HashMap<TenantName, Weak<Semaphore>>,
}

impl Worker {
    fn new(directory: SharedDirectory, home: Home) -> Self {
        let (served, tenants) = (HashMap::new(), HashMap::new());
        Self { directory, home: Rc::new(home), served, tenants }
    }

    async fn work(mut self, mut commands: UnboundedReceiver<Command>) {
        while let Some(command) = commands.recv().await {
            match command {
                Command::Serve { served, reply } => {
                    let container = served.container;
                    if let Err(Ok(())) = reply.send(self.serve(served)) {
                        // The caller has gone, so nobody else will.
                        self.served.remove(&container);
                    }
                }
                Command::End(container) => drop(self.served.remove(&container)),
                Command::Stop => return,
            }
        }
    }

    fn serve(&mut self, served: Served) -> io::Result<()> {
        let Served { container, tenant, netns, settings } = served;
        self.served.remove(&container);
        let sockets = self.home.listen(&netns)?;
        let of_tenant = self.of_tenant(tenant);
        let upstreams = &settings.upstreams;
        let forwarder = Forwarder::new(upstreams, self.home.clone(), netns, of_tenant);
        let tasks = serve(container, sockets, self.directory.clone(), (settings, forwarder))?;
        self.served.insert(container, tasks);
        Ok(())
    }

    fn of_tenant(&mut self, tenant: TenantName) -> Arc<Semaphore> {
        self.tenants.retain(|_, shared| shared.strong_count() > 0);
        if let Some(shared) = self.tenants.get(&tenant).and_then(Weak::upgrade) {
            return shared;
        }
        let shared = Arc::new(Semaphore::new(AT_ONCE));
        self.tenants.insert(tenant, Arc::downgrade(&shared));
        shared
    }
}
