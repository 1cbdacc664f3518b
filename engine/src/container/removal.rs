//! How a container goes, and what goes with it.

use super::{
    MountPoint, Mounted, RemoveOptions, State,
    driver::{Done, Driver, SIGKILL, answer},
    ending::{Ending, Then},
    state::Event,
};
use crate::{
    error::{Error, chain},
    storage::{NotRemoved, Upper},
};

impl Driver {
    pub(super) async fn remove_asked(&mut self, how: RemoveOptions, called: &str, done: Done<()>) {
        let Some(running) = self.running.clone() else {
            self.restart_at = None;
            let outcome = self.remove(how).await;
            return answer(done, outcome);
        };
        if !how.force {
            let paused = matches!(self.record.state, State::Paused { .. });
            let why = if paused {
                "paused and must be unpaused first".to_owned()
            } else {
                let state = self.record.state.name();
                format!("{state}: stop the container before removing or force remove")
            };
            let refused = format!("cannot remove container \"{called}\": container is {why}");
            return answer(done, Err(Error::Conflict(refused)));
        }
        self.no_restart = true;
        // An error: it has just ended, and the exit is on its way.
        drop(running.signal(SIGKILL));
        self.endings.push(Ending { kill_at: None, then: Then::Remove(how), done });
    }

    /// Docker's `--rm`.
    pub(super) async fn auto_remove(&mut self) {
        let how = RemoveOptions { force: false, volumes: true };
        if let Err(error) = self.remove(how).await {
            tracing::error!(container = %self.record.id, error = %chain(&error), "cannot remove");
        }
    }

    /// Record first, then the rest: what a crash leaves has no owner, and is
    /// swept away at the next start.
    pub(super) async fn remove(&mut self, how: RemoveOptions) -> Result<(), Error> {
        if self.record.state == State::Removing {
            return Err(Error::Conflict(format!(
                "removal of container {} is already in progress",
                self.record.id
            )));
        }
        let id = self.record.id;
        let before = self.record.state.clone();
        self.step(Event::Removed);
        if let Err(error) = self.tools.forget(id).await {
            self.record.state = before;
            self.publish();
            return Err(error);
        }
        self.end_due = None;
        self.tools.store.remove_rootfs(id).await.map_err(|error| {
            Error::internal(format!("cannot remove the files of container {id}"), error)
        })?;
        self.tools.runtime.forget_exit(id);
        self.tools.registry.remove(id);
        self.tools.volumes.release(id);
        self.tools.announce(&self.record, "destroy", &[]);
        self.removed = true;
        if how.volumes {
            self.remove_volumes().await;
        }
        Ok(())
    }

    /// Gives away what it has written, and goes.
    pub(super) async fn surrender(&mut self) -> Result<Upper, Error> {
        let id = self.record.id;
        if self.running.is_some() {
            return Err(Error::Conflict(format!("container {id} is running")));
        }
        let store = self.tools.store.clone();
        let taken = self.tools.tracker.spawn_blocking(move || store.take_upper(id)).await;
        let upper = taken.map_err(|error| Error::internal("cannot take a layer", error))??;
        self.remove(RemoveOptions { force: false, volumes: true }).await?;
        Ok(upper)
    }

    /// Docker's `rm -v`: of the volumes that were given no name. One that
    /// another container uses stays.
    pub(super) async fn remove_volumes(&self) {
        let anonymous =
            |point: &&MountPoint| matches!(point.what, Mounted::Volume { anonymous: true, .. });
        let tenant = &self.record.tenant;
        for name in self.record.mounts.iter().filter(anonymous).filter_map(MountPoint::volume) {
            match self.tools.volumes.remove(tenant, name).await {
                Ok(()) => self.tools.announce_volume(tenant, name, "destroy", &[]),
                Err(NotRemoved::InUse(_) | NotRemoved::NoSuch) => {}
                Err(error) => {
                    tracing::error!(volume = %name, error = %chain(&error), "cannot remove");
                }
            }
        }
    }
}
