//! Reads an operation from a stream, whatever it weighs.
//!
//! A finished inline job carries all its results, twice (API contract, 5.1). Results are handed
//! on one by one, from whichever copy comes first, byte for byte as they came; nothing else of
//! them is kept. Memory is bounded by the longest single result, and that by a limit.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::wire::{Int64, Status, WireError, batch_name, file_name, millis, plain};
use crate::engine::event::RemoteBatch;
use crate::engine::job::RemoteState;

/// What an operation says about its batch, without the results.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operation {
    /// `batches/…`, from the envelope or from the metadata.
    pub name: String,
    /// Whether it is over; missing on the wire until it is (4.1).
    pub done: bool,
    /// The error of the whole batch.
    pub error: Option<Status>,
    /// Our stamp, if it is ours.
    pub display_name: String,
    /// The state as it came.
    pub state: String,
    /// When it was created, as it came.
    pub create_time: String,
    /// When it ended, as it came.
    pub end_time: String,
    /// The file its requests came from.
    pub input_file: Option<String>,
    /// The file with its results.
    pub responses_file: Option<String>,
    /// How many requests it has.
    pub request_count: Option<u64>,
    /// How many of them are answered; may be stale, and zero is mostly missing (4.4).
    pub successful_count: Option<u64>,
    /// How many of them failed; as stale.
    pub failed_count: Option<u64>,
    /// The model, as it came.
    pub model: String,
    /// How many inline results were handed on.
    pub items: u64,
}

/// Why an operation could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Taking a result failed on this side.
    #[error("a result could not be written: {0}")]
    Sink(#[source] io::Error),
    /// The answer is not what it should be, or broke off.
    #[error("the answer is not a readable operation: {0}")]
    Content(#[source] serde_json::Error),
}

impl Operation {
    /// Reads an operation that fits in memory; its results are passed over.
    ///
    /// # Errors
    /// If the text is no operation.
    pub fn from_text(text: &str) -> Result<Operation, ReadError> {
        Operation::read(text.as_bytes(), text.len() as u64, None)
    }

    /// Reads an operation from a stream. `sink` gets every result once; without it they are
    /// passed over. No single result may be longer than `item_bytes_max`.
    ///
    /// # Errors
    /// If the stream breaks off, is no operation, or holds a result that is too long, or if
    /// `sink` fails.
    pub fn read(
        mut stream: impl Read,
        item_bytes_max: u64,
        sink: Option<Sink<'_>>,
    ) -> Result<Operation, ReadError> {
        // Most answers are small, and what is in memory is read several times as fast.
        let mut start = Vec::new();
        let most = WHOLE_BYTES.min(item_bytes_max.saturating_add(1));
        let read = stream.by_ref().take(most).read_to_end(&mut start);
        read.map_err(|error| ReadError::Content(serde_json::Error::io(error)))?;
        let budget = Budget { left: Rc::default(), max: item_bytes_max };
        budget.refill();
        if (start.len() as u64) < most {
            return Reading::whole(serde_json::Deserializer::from_slice(&start), sink, budget);
        }
        let metered = Metered {
            inner: BufReader::with_capacity(256 * 1024, io::Cursor::new(start).chain(stream)),
            left: Rc::clone(&budget.left),
        };
        Reading::whole(serde_json::Deserializer::from_reader(metered), sink, budget)
    }

    /// What the engine wants to know of it.
    ///
    /// # Errors
    /// If one of the names in it can not be used.
    pub fn into_batch(self) -> Result<RemoteBatch, WireError> {
        let state = match self.state.as_str() {
            "" if self.done && self.error.is_some() => RemoteState::Failed,
            "" if self.done => RemoteState::Succeeded,
            "" => RemoteState::Unknown("UNSPECIFIED".to_owned()),
            text => RemoteState::parse(&plain(text, 64)),
        };
        Ok(RemoteBatch {
            name: batch_name(&self.name)?,
            display_name: plain(&self.display_name, 512),
            state,
            done: self.done,
            error: self.error.map(Into::into),
            created: millis(&self.create_time),
            ended: millis(&self.end_time),
            input_file: self.input_file.as_deref().map(file_name).transpose()?,
            output_file: self.responses_file.as_deref().map(file_name).transpose()?,
        })
    }
}

/// Takes one result: its text as it came, line breaks between tokens included.
pub type Sink<'a> = &'a mut dyn FnMut(&str) -> io::Result<()>;

/// One operation being read.
struct Reading<'a> {
    operation: Operation,
    sink: Option<Sink<'a>>,
    budget: Budget,
    /// One copy of the results was handed on; another one is passed over.
    taken: bool,
    sink_error: Option<io::Error>,
}

impl<'a> Reading<'a> {
    /// Reads everything there is, and makes sure that nothing follows.
    fn whole<'de>(
        mut from: serde_json::Deserializer<impl serde_json::de::Read<'de>>,
        sink: Option<Sink<'a>>,
        budget: Budget,
    ) -> Result<Operation, ReadError> {
        let operation = Operation::default();
        let mut reading = Reading { operation, sink, budget, taken: false, sink_error: None };
        let outcome = Within { part: Part::Envelope, reading: &mut reading }
            .deserialize(&mut from)
            .and_then(|()| from.end());
        match (outcome, reading.sink_error) {
            (_, Some(error)) => Err(ReadError::Sink(error)),
            (Err(error), None) => Err(ReadError::Content(error)),
            (Ok(()), None) => Ok(reading.operation),
        }
    }
}

/// Where in the operation we are.
#[derive(Debug, Clone, Copy)]
enum Part {
    Envelope,
    Metadata,
    InputConfig,
    Stats,
    /// `metadata.output` or `response`.
    Output,
    /// The first `inlinedResponses`, an object.
    Inlined,
    /// The second one, the list.
    Results,
}

/// Reads one part; everything that is not known is passed over.
struct Within<'r, 'a> {
    part: Part,
    reading: &'r mut Reading<'a>,
}

impl<'de> DeserializeSeed<'de> for Within<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Within<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.part {
            Part::Results => f.write_str("a list of results"),
            Part::Envelope
            | Part::Metadata
            | Part::InputConfig
            | Part::Stats
            | Part::Output
            | Part::Inlined => f.write_str("an object"),
        }
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        match self.part {
            Part::Envelope => Err(E::custom("null instead of an operation")),
            Part::Metadata
            | Part::InputConfig
            | Part::Stats
            | Part::Output
            | Part::Inlined
            | Part::Results => Ok(()),
        }
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let Within { part, reading } = self;
        if let Part::Results = part {
            return Err(de::Error::custom("an object instead of a list of results"));
        }
        while let Some(key) = map.next_key::<String>()? {
            reading.budget.refill();
            if let Some(inner) = part.inner(&key) {
                map.next_value_seed(Within { part: inner, reading: &mut *reading })?;
            } else {
                reading.operation.member(part, &key, &mut map)?;
            }
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<(), S::Error> {
        let Within { part, reading } = self;
        match part {
            Part::Results => reading.results(&mut list),
            Part::Envelope
            | Part::Metadata
            | Part::InputConfig
            | Part::Stats
            | Part::Output
            | Part::Inlined => Err(de::Error::custom("a list instead of an object")),
        }
    }
}

impl Part {
    /// The part that begins at this member.
    fn inner(self, key: &str) -> Option<Part> {
        match (self, key) {
            (Part::Envelope, "metadata") => Some(Part::Metadata),
            (Part::Envelope, "response") => Some(Part::Output),
            (Part::Metadata, "inputConfig") => Some(Part::InputConfig),
            (Part::Metadata, "batchStats") => Some(Part::Stats),
            // Embedding batches have been seen with the whole batch as their response (4.1).
            (Part::Metadata | Part::Output, "output") => Some(Part::Output),
            (Part::Output, "inlinedResponses") => Some(Part::Inlined),
            (Part::Inlined, "inlinedResponses") => Some(Part::Results),
            (_, _) => None,
        }
    }
}

impl Operation {
    /// Takes one member that is a plain value.
    fn member<'de, M: MapAccess<'de>>(
        &mut self,
        part: Part,
        key: &str,
        map: &mut M,
    ) -> Result<(), M::Error> {
        match (part, key) {
            (Part::Envelope, "name") => set(&mut self.name, map.next_value()?),
            (Part::Envelope, "done") => set(&mut self.done, map.next_value()?),
            (Part::Envelope, "error") => self.error = map.next_value()?,
            (Part::Metadata, "name") => {
                // The envelope's name is always there and wins (4.1).
                let inner: Option<String> = map.next_value()?;
                if self.name.is_empty() {
                    set(&mut self.name, inner);
                }
            }
            (Part::Metadata, "displayName") => set(&mut self.display_name, map.next_value()?),
            // What only people look at may be anything without hiding the rest.
            (Part::Metadata, "model") => {
                let model: Value = map.next_value()?;
                set(&mut self.model, model.as_str().map(str::to_owned));
            }
            (Part::Metadata, "state") => set(&mut self.state, map.next_value()?),
            (Part::Metadata, "createTime") => set(&mut self.create_time, map.next_value()?),
            (Part::Metadata, "endTime") => set(&mut self.end_time, map.next_value()?),
            (Part::InputConfig, "fileName") => self.input_file = map.next_value()?,
            (Part::Output, "responsesFile") => {
                let file: Option<String> = map.next_value()?;
                let file = file.filter(|name| !name.is_empty());
                self.responses_file = self.responses_file.take().or(file);
            }
            (Part::Stats, "requestCount") => {
                let count: Option<Int64> = map.next_value()?;
                self.request_count = count.and_then(|count| u64::try_from(count.0).ok());
            }
            (Part::Stats, "successfulRequestCount") => {
                self.successful_count = loose_count(map.next_value()?);
            }
            (Part::Stats, "failedRequestCount") => {
                self.failed_count = loose_count(map.next_value()?);
            }
            (_, _) => {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

impl Reading<'_> {
    fn results<'de, S: SeqAccess<'de>>(&mut self, list: &mut S) -> Result<(), S::Error> {
        let mut any = false;
        loop {
            self.budget.refill();
            let sink = if self.taken { None } else { self.sink.as_mut() };
            let Some(sink) = sink else {
                if list.next_element::<IgnoredAny>()?.is_none() {
                    break;
                }
                continue;
            };
            let Some(item) = list.next_element::<Box<RawValue>>()? else { break };
            any = true;
            self.operation.items += 1;
            if let Err(error) = sink(item.get()) {
                self.sink_error = Some(error);
                return Err(de::Error::custom("not written"));
            }
        }
        self.taken |= any;
        Ok(())
    }
}

fn loose_count(value: Value) -> Option<u64> {
    let number: Int64 = serde_json::from_value(value).ok()?;
    u64::try_from(number.0).ok()
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

/// How much may still be read before the next result begins.
struct Budget {
    left: Rc<Cell<u64>>,
    max: u64,
}

impl Budget {
    fn refill(&self) {
        self.left.set(self.max);
    }
}

/// A reader that stops when the budget is used up: the bound on what is kept of one value.
struct Metered<R> {
    inner: BufReader<R>,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            // Nothing is lost by asking: at the very end there is no more to read.
            return match self.inner.fill_buf()? {
                [] => Ok(0),
                _ => Err(io::Error::other("a single value in it is longer than the limit")),
            };
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.left.set(left - read as u64);
        Ok(read)
    }
}

/// An answer of fewer bytes is held whole while it is read.
const WHOLE_BYTES: u64 = 1024 * 1024;

#[cfg(test)]
#[path = "operation_tests.rs"]
mod tests;
