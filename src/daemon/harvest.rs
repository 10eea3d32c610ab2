//! Results on their way from the API into the spool.
//!
//! Only puts the two together: the provider tells what arrives, the spool takes it in.

use std::sync::{Arc, Mutex, PoisonError};

use crate::engine::effect::Which;
use crate::engine::event::{Failure, Harvest};
use crate::engine::ids::BatchName;
use crate::failpoint;
use crate::provider::gemini::{Client, Results};
use crate::spool::answers::{self, CollectError};
use crate::spool::lost::{self, Needed};
use crate::spool::receiver::Receiver;
use crate::spool::{JobFolder, durable};

use super::blocking::blocking;
use super::perform::{local, removed};

/// Fetches the results of an attempt, unless they are here already, and takes them in.
///
/// # Errors
/// Sorted by what to do about it; nothing of the attempt stays noted then.
pub async fn collect(
    client: &Client,
    folder: JobFolder,
    which: Which,
    batch: &BatchName,
    missing_max: u64,
) -> Result<Harvest, Failure> {
    let kept = folder.answers(which.chunk, which.attempt);
    let harvest = fetched(client, folder, which, batch, missing_max).await?;
    // How much room the results take at the API; nobody else tells.
    let bytes = blocking(move || std::fs::metadata(kept).map_or(0, |kept| kept.len())).await;
    Ok(Harvest { bytes, ..harvest })
}

async fn fetched(
    client: &Client,
    folder: JobFolder,
    which: Which,
    batch: &BatchName,
    missing_max: u64,
) -> Result<Harvest, Failure> {
    let name = batch.clone();
    let begun = blocking(move || match lost::lost(&folder, Needed::Indexes) {
        Some(path) => Err(removed(&folder, &path)),
        None => begin(folder, which, missing_max).map_err(|error| sorted(&name, error)),
    });
    let taker = match begun.await? {
        Begun::Here(harvest) => return Ok(harvest),
        Begun::Open(receiver) => {
            Arc::new(Mutex::new(Taker { receiver: *receiver, batch: batch.clone() }))
        }
    };
    let fetched = client.fetch(batch, &taker).await;
    blocking(move || {
        let Taker { receiver, batch } = &mut *taker.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = match fetched {
            Ok(_) => receiver.finish().map_err(|error| refuse(receiver, batch, error)),
            Err(failure) => Err(failure),
        };
        if taken.is_err() {
            receiver.give_up().map_err(|error| local(&error))?;
        }
        taken
    })
    .await
}

/// What there is to begin with.
enum Begun {
    /// The results lie here, whole.
    Here(Harvest),
    /// They are to be fetched.
    Open(Box<Receiver>),
}

fn begin(folder: JobFolder, which: Which, missing_max: u64) -> Result<Begun, CollectError> {
    let answers = folder.answers(which.chunk, which.attempt);
    if answers.exists() {
        return answers::collect(&folder, &which, missing_max).map(Begun::Here);
    }
    answers.parent().map_or(Ok(()), durable::make_folder)?;
    Ok(Begun::Open(Box::new(Receiver::open(&folder, &which, missing_max)?)))
}

/// Takes results of a batch as the provider hands them on.
struct Taker {
    receiver: Receiver,
    batch: BatchName,
}

impl Results for Taker {
    fn resume(&mut self) -> Result<u64, Failure> {
        self.receiver.resume().map_err(|error| local(&error))
    }

    fn restart(&mut self) -> Result<(), Failure> {
        self.receiver.restart().map_err(|error| local(&error))
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        failpoint::at("collect:bytes").map_err(|error| Failure::Local(error.to_string()))?;
        self.receiver.take(bytes).map_err(|error| refuse(&mut self.receiver, &self.batch, error))
    }

    fn is_whole(&mut self) -> bool {
        self.receiver.is_whole()
    }

    fn pause(&mut self) -> Result<(), Failure> {
        self.receiver.pause().map_err(|error| local(&error))
    }
}

/// Sorts an error; results that are damaged or short must be fetched from the start.
fn refuse(receiver: &mut Receiver, batch: &BatchName, error: CollectError) -> Failure {
    match &error {
        CollectError::Spool(_) => sorted(batch, error),
        CollectError::Torn { .. } | CollectError::Short { .. } => match receiver.restart() {
            Ok(()) => sorted(batch, error),
            Err(error) => local(&error),
        },
    }
}

fn sorted(batch: &BatchName, error: CollectError) -> Failure {
    match error {
        CollectError::Spool(error) => local(&error),
        CollectError::Short { missing } => {
            let message = format!("results of {}: {error}", batch.0);
            Failure::Damaged { message, missing: Some(missing) }
        }
        CollectError::Torn { .. } => {
            let message = format!("results of {}: {error}", batch.0);
            Failure::Damaged { message, missing: None }
        }
    }
}
