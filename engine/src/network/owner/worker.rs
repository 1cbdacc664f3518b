//! A thread that works for the owner.

use super::Command;
use crate::network::namespace::{Maker, Order, work};
use std::{
    io,
    sync::mpsc::{Sender, channel},
    thread,
};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::warn;
use tritium_probes::Guard;

/// A thread that carries out orders.
#[derive(Debug)]
pub(super) struct Worker {
    orders: Sender<Order>,
    thread: thread::JoinHandle<()>,
}

impl Worker {
    pub(super) fn spawn(
        name: &str,
        owner: Sender<Command>,
        token: TaskTrackerToken,
        guard: Guard,
    ) -> io::Result<Self> {
        let maker = Maker::new(guard)?;
        let (orders, received) = channel();
        let run = move || {
            work(maker, &received, &owner);
            drop(token);
        };
        let thread = thread::Builder::new().name(name.into()).spawn(run)?;
        Ok(Self { orders, thread })
    }

    pub(super) fn order(&self, order: Order) {
        if self.orders.send(order).is_err() {
            warn!("a thread of the networks has died");
        }
    }

    /// Ends the thread after its last order.
    pub(super) fn finish(self) {
        drop(self.orders);
        if self.thread.join().is_err() {
            warn!("a thread of the networks has died");
        }
    }
}
