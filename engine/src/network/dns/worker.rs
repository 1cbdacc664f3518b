//! The thread that all resolvers run on.

use super::{
    Served, SharedDirectory,
    forward::Forwarder,
    home::Home,
    place::{Place, Places},
    server::serve,
};
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
use tritium_probes::Resolvers;

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
    resolvers: Resolvers,
    token: TaskTrackerToken,
) -> io::Result<UnboundedSender<Command>> {
    let (sender, commands) = unbounded_channel();
    let (ready, started) = mpsc::channel();
    thread::Builder::new().name("dns".into()).spawn(move || {
        let prepared = Builder::new_current_thread().enable_all().build();
        let prepared = prepared
            .and_then(|runtime| Ok((runtime, Home::of_this_thread()?, Places::new(resolvers)?)));
        match prepared {
            Ok((runtime, home, places)) => {
                // The caller waits for this.
                drop(ready.send(Ok(())));
                let worker = Worker::new(directory, home, places);
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
    places: Places,
    served: HashMap<ContainerId, Running>,
    tenants: HashMap<TenantName, Weak<Semaphore>>,
}

/// A container's resolver.
#[derive(Debug)]
struct Running {
    tasks: JoinSet<()>,
    place: Place,
}

impl Worker {
    fn new(directory: SharedDirectory, home: Home, places: Places) -> Self {
        let (served, tenants) = (HashMap::new(), HashMap::new());
        Self { directory, home: Rc::new(home), places, served, tenants }
    }

    async fn work(mut self, mut commands: UnboundedReceiver<Command>) {
        while let Some(command) = commands.recv().await {
            match command {
                Command::Serve { served, reply } => {
                    let container = served.container;
                    if let Err(Ok(())) = reply.send(self.serve(served).await) {
                        // The caller has gone, so nobody else will.
                        self.end(container).await;
                    }
                }
                Command::End(container) => self.end(container).await,
                // The next engine is to find where they have listened.
                Command::Stop => return,
            }
        }
    }

    async fn serve(&mut self, served: Served) -> io::Result<()> {
        let Served { container, tenant, netns, settings } = served;
        self.end(container).await;
        let (sockets, place) = self.places.listen(&self.home, &netns)?;
        let of_tenant = self.of_tenant(tenant);
        let upstreams = &settings.upstreams;
        let forwarder = Forwarder::new(upstreams, self.home.clone(), netns, of_tenant);
        let tasks = serve(container, sockets, self.directory.clone(), (settings, forwarder))?;
        self.places.lead_to(place)?;
        self.served.insert(container, Running { tasks, place });
        Ok(())
    }

    /// Its sockets are closed, too, when this is done.
    async fn end(&mut self, container: ContainerId) {
        let Some(Running { mut tasks, place }) = self.served.remove(&container) else { return };
        self.places.forget(place);
        tasks.shutdown().await;
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
