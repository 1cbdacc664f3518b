//! The one thread that has the database: it writes what has piled up while it
//! was writing, in one transaction with one fsync.
//!
//! So a hundred concurrent commits cost a few fsyncs, not a hundred. It also
//! does the reading, which only happens when the engine starts.
//!
//! After a failed write (a full disk) redb refuses everything until it is
//! opened again, since it cannot know what reached the disk. What had been
//! committed is still there, so the thread opens it again and goes on.

use super::{Batch, StoreError, Table, atomic, lock::Lock, records::Change};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, TableHandle};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
};
use tokio::sync::oneshot;

/// Grows when an engine of before could not do with what is written.
///
/// 1: the first. 2: layers have recipes, and it is known where they are in
/// registries; nothing of version 1 has to be rewritten for that.
const SCHEMA: u64 = 2;
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Commits in one transaction, so that the first of them does not wait long.
const GROUP: usize = 1024;

type Rows = Vec<(String, Vec<u8>)>;

enum Request {
    Commit { changes: Vec<Change>, done: oneshot::Sender<Result<(), StoreError>> },
    Read { table: Table, done: oneshot::Sender<Result<Rows, StoreError>> },
}

/// Where to send what shall be written. When it is dropped, what was sent is
/// still written, and then the lock is let go.
#[derive(Debug)]
pub(super) struct Writer {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

fn table(table: Table) -> TableDefinition<'static, &'static str, &'static [u8]> {
    TableDefinition::new(table.name())
}

impl Writer {
    /// Opens the database in `dir`, or makes it.
    pub(super) fn open(dir: &Path, lock: Lock) -> Result<Self, StoreError> {
        let path = dir.join("state.redb");
        let database = Some(open(&path)?);
        atomic::sync_directory(dir)?;
        let (sender, requests) = mpsc::channel();
        let owner = Owner { path, database, lock };
        let thread = std::thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || owner.run(&requests))
            .map_err(StoreError::io("start a thread for", dir))?;
        Ok(Self { requests: Some(sender), thread: Some(thread) })
    }

    /// Enqueues at once, in the order of calls; the answer says when it is durable.
    pub(super) fn commit(&self, batch: Batch) -> oneshot::Receiver<Result<(), StoreError>> {
        let (done, answer) = oneshot::channel();
        match batch.bad {
            Some(bad) => drop(done.send(Err(bad))),
            None if batch.changes.is_empty() => drop(done.send(Ok(()))),
            None => self.send(Request::Commit { changes: batch.changes, done }),
        }
        answer
    }

    /// All rows of a table, by key.
    pub(super) fn read(&self, table: Table) -> oneshot::Receiver<Result<Rows, StoreError>> {
        let (done, answer) = oneshot::channel();
        self.send(Request::Read { table, done });
        answer
    }

    /// A request that cannot be sent is dropped, and its `done` with it: the
    /// caller then reads `Stopping`.
    fn send(&self, request: Request) {
        if let Some(requests) = &self.requests {
            drop(requests.send(request));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes records has panicked");
        }
    }
}

struct Owner {
    path: PathBuf,
    /// None after a failure, until it could be opened again.
    database: Option<Database>,
    /// Let go only after the database has been closed: declared after it.
    #[expect(dead_code, reason = "it is held, not looked at")]
    lock: Lock,
}

impl Owner {
    fn run(mut self, requests: &mpsc::Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let mut changes = Vec::new();
            let mut waiting = Vec::new();
            let mut reads = Vec::new();
            let rest = std::iter::from_fn(|| requests.try_recv().ok()).take(GROUP - 1);
            for request in std::iter::once(first).chain(rest) {
                match request {
                    Request::Commit { changes: more, done } => {
                        changes.extend(more);
                        waiting.push(done);
                    }
                    Request::Read { table, done } => reads.push((table, done)),
                }
            }
            if !waiting.is_empty() {
                let outcome = self.attempt("commit", |database| write(database, &changes));
                // Nobody to answer: the caller has gone, the change was made.
                waiting.into_iter().for_each(|done| drop(done.send(outcome.clone())));
            }
            for (table, done) in reads {
                drop(done.send(self.attempt("read", |database| rows(database, table))));
            }
        }
    }

    fn attempt<T>(
        &mut self,
        doing: &'static str,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        let outcome = work(&database);
        if outcome.is_ok() {
            self.database = Some(database);
        }
        outcome.map_err(|source| failed(doing, &self.path, source))
    }
}

fn failed(doing: &'static str, path: &Path, source: redb::Error) -> StoreError {
    StoreError::Database { doing, path: path.to_owned(), source: Arc::new(source) }
}

fn open(path: &Path) -> Result<Database, StoreError> {
    let database =
        Database::create(path).map_err(|e| failed("open the database", path, e.into()))?;
    let found = schema(&database).map_err(|e| failed("read the schema's version", path, e))?;
    match found {
        Some(found) if found > SCHEMA => {
            Err(StoreError::NewerSchema { path: path.to_owned(), found, known: SCHEMA })
        }
        Some(SCHEMA)
            if has_all(&database).map_err(|e| failed("look at the tables", path, e))? =>
        {
            Ok(database)
        }
        Some(_) | None => {
            prepare(&database).map_err(|e| failed("make the tables", path, e))?;
            Ok(database)
        }
    }
}

/// Whether every table is there.
fn has_all(database: &Database) -> Result<bool, redb::Error> {
    let transaction = database.begin_read()?;
    let there = transaction.list_tables()?.map(|table| table.name().to_owned());
    let there = there.collect::<Vec<_>>();
    Ok(Table::ALL.iter().all(|table| there.iter().any(|name| name == table.name())))
}

fn schema(database: &Database) -> Result<Option<u64>, redb::Error> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get("schema")?.map(|version| version.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes what is missing, and says that the file is of this version now.
fn prepare(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for name in Table::ALL {
        transaction.open_table(table(name))?;
    }
    transaction.open_table(META)?.insert("schema", SCHEMA)?;
    Ok(transaction.commit()?)
}

fn write(database: &Database, changes: &[Change]) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    for name in Table::ALL {
        let mut here = changes.iter().filter(|change| change.table == name).peekable();
        if here.peek().is_none() {
            continue;
        }
        let mut table = transaction.open_table(table(name))?;
        for change in here {
            match &change.value {
                Some(value) => drop(table.insert(change.key.as_str(), value.as_slice())?),
                None => drop(table.remove(change.key.as_str())?),
            }
        }
    }
    Ok(transaction.commit()?)
}

fn rows(database: &Database, name: Table) -> Result<Rows, redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(table(name)) {
        // An older engine's file; the first record makes the table.
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Rows::new()),
        table => table?,
    };
    let mut rows = Vec::new();
    for row in table.iter()? {
        let (key, value) = row?;
        rows.push((key.value().to_owned(), value.value().to_owned()));
    }
    Ok(rows)
}
