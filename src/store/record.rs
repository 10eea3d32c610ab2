//! The saved form: versioned JSON, one object for each job head, chunk and note.
//!
//! `{"v":1,"head":{…}}`, `{"v":1,"job":"…","chunk":{…}}`, `{"v":1,"note":{…}}`; the mirror in a
//! job's working folder is `{"v":1,"head":{…},"chunks":[…]}`. The `…V1` types below are that form:
//! released, so never changed but for new fields that old records do without. When the domain types
//! move on, version 2 gets types of its own and [`Form`] for version 1 is written out by hand. Unknown fields, versions and names are errors:
//! what is not understood must not be written back without it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::answers::TOKENS_MAX;
use crate::engine::job::{
    Accept, Aid, Amount, Answers, Batch, BatchRecord, By, Canary, Conversion, Cost, Deadline,
    Delivery, Density, Doubt, Family, Funds, Input, Media, MediaTally, Moments, OpenAiLines, Plan,
    Promise, Purse, Queue, Refusal, RemoteEnd, RemoteError, RemoteState, Rest, Share, Source,
    Stuck, Tally, Task, Tier, Tiers, Tokens, Tolerance, Transport, Trial, Window,
};
use crate::engine::{
    Attempt, BatchName, Chunk, ChunkNo, ChunkState, FileName, Head, Job, JobId, JobState, Millis,
    Row, Rows,
};

/// A record may take up to 64 KiB; most take less than 1 KiB, and 4 KiB is the aim.
pub const BYTES_MAX: usize = 64 * 1024;

/// The version that is written.
pub const VERSION: u32 = 1;

/// One record, read.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A job without its chunks.
    Head(Box<Head>),
    /// A chunk of a job.
    Chunk(JobId, Box<Chunk>),
    /// A value under a name.
    Note {
        /// The name.
        name: String,
        /// The value.
        value: String,
    },
}

impl Record {
    /// The record in the newest version.
    pub fn write(&self) -> Vec<u8> {
        match self {
            Record::Head(head) => write_head(head),
            Record::Chunk(id, chunk) => write_chunk(*id, chunk),
            Record::Note { name, value } => write_note(name, value),
        }
    }
}

/// The record of a job's head.
pub fn write_head(head: &Head) -> Vec<u8> {
    json(&EnvelopeV1 { head: Some(head.store()), ..EnvelopeV1::new() })
}

/// The record of a chunk.
pub fn write_chunk(job: JobId, chunk: &Chunk) -> Vec<u8> {
    let chunk = Some(chunk.store());
    json(&EnvelopeV1 { job: Some(job.store()), chunk, ..EnvelopeV1::new() })
}

/// The record of a note.
pub fn write_note(name: &str, value: &str) -> Vec<u8> {
    let note = NoteV1 { name: name.to_owned(), value: value.to_owned() };
    json(&EnvelopeV1 { note: Some(note), ..EnvelopeV1::new() })
}

/// Reads a record of any released version.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read(bytes: &[u8]) -> Result<Record, String> {
    match open(bytes)? {
        EnvelopeV1 {
            head: Some(head), job: None, chunk: None, chunks: None, note: None, ..
        } => Ok(Record::Head(Box::new(Form::restore(head)?))),
        EnvelopeV1 {
            job: Some(job),
            chunk: Some(chunk),
            head: None,
            chunks: None,
            note: None,
            ..
        } => Ok(Record::Chunk(Form::restore(job)?, Box::new(Form::restore(chunk)?))),
        EnvelopeV1 {
            note: Some(note), head: None, job: None, chunk: None, chunks: None, ..
        } => Ok(Record::Note { name: note.name, value: note.value }),
        EnvelopeV1 { .. } => {
            Err("it is neither a head, nor a chunk with its job, nor a note".into())
        }
    }
}

/// The mirror of a whole job, for `record.json` in its working folder.
pub fn mirror(job: &Job) -> Vec<u8> {
    let chunks = Some(job.chunks.values().map(Form::store).collect());
    let mut bytes = json(&EnvelopeV1 { head: Some(job.head.store()), chunks, ..EnvelopeV1::new() });
    bytes.push(b'\n');
    bytes
}

/// Reads a mirror of any released version.
///
/// # Errors
/// What is wrong with it, in words.
pub fn from_mirror(bytes: &[u8]) -> Result<Job, String> {
    let EnvelopeV1 {
        head: Some(head),
        chunks: Some(stored),
        job: None,
        chunk: None,
        note: None,
        ..
    } = open(bytes)?
    else {
        return Err("it is no job with its chunks".into());
    };
    let mut chunks = BTreeMap::new();
    for chunk in stored {
        let chunk: Chunk = Form::restore(chunk)?;
        if let Some(twice) = chunks.insert(chunk.no, chunk) {
            return Err(format!("chunk {} is there twice", twice.no.0));
        }
    }
    Ok(Job { head: Form::restore(head)?, chunks })
}

/// Tells the version of what can not be read, so that a newer record is not taken for a broken one.
fn open(bytes: &[u8]) -> Result<EnvelopeV1, String> {
    #[derive(Deserialize)]
    struct Peek {
        v: u32,
    }
    match serde_json::from_slice::<EnvelopeV1>(bytes) {
        Ok(envelope) if envelope.v == VERSION => Ok(envelope),
        read => match (serde_json::from_slice(bytes), read) {
            (Ok(Peek { v: VERSION }), Err(error)) | (Err(error), _) => Err(error.to_string()),
            (Ok(Peek { v }), _) => {
                Err(format!("it has version {v}, this gemini-batchd reads version {VERSION}"))
            }
        },
    }
}

fn json(envelope: &EnvelopeV1) -> Vec<u8> {
    serde_json::to_vec(envelope).expect("the saved form has text keys and plain values only")
}

/// Between a domain type and its saved form.
trait Form: Sized {
    type Stored;
    fn store(&self) -> Self::Stored;
    fn restore(stored: Self::Stored) -> Result<Self, String>;
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeV1 {
    v: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<HeadV1>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chunk: Option<ChunkV1>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chunks: Option<Vec<ChunkV1>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<NoteV1>,
}

impl EnvelopeV1 {
    fn new() -> EnvelopeV1 {
        EnvelopeV1 { v: VERSION, job: None, head: None, chunk: None, chunks: None, note: None }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoteV1 {
    name: String,
    value: String,
}

/// Saved forms whose fields still bear the names of the domain's.
macro_rules! fields {
    ($($domain:ident as $stored:ident { $($(#[$how:meta])? $field:ident: $kind:ty,)* })*) => {$(
        #[derive(Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $stored { $($(#[$how])? $field: $kind,)* }

        impl Form for $domain {
            type Stored = $stored;
            fn store(&self) -> $stored {
                $stored { $($field: self.$field.store(),)* }
            }
            fn restore(stored: $stored) -> Result<$domain, String> {
                Ok($domain { $($field: Form::restore(stored.$field)?,)* })
            }
        }
    )*};
}

/// Saved forms of choices: each variant bare, around one value, or with fields.
macro_rules! choices {
    ($($domain:ident as $stored:ident {
        $($bare:ident,)* ; $($around:ident($kind:ty),)* ; $($with:ident { $($field:ident: $fkind:ty,)* },)*
    })*) => {$(
        #[derive(Serialize, Deserialize)]
        #[serde(rename_all = "snake_case", deny_unknown_fields)]
        enum $stored { $($bare,)* $($around($kind),)* $($with { $($field: $fkind,)* },)* }

        impl Form for $domain {
            type Stored = $stored;
            fn store(&self) -> $stored {
                match self {
                    $($domain::$bare => $stored::$bare,)*
                    $($domain::$around(value) => $stored::$around(value.store()),)*
                    $($domain::$with { $($field,)* } => $stored::$with { $($field: $field.store(),)* },)*
                }
            }
            fn restore(stored: $stored) -> Result<$domain, String> {
                Ok(match stored {
                    $($stored::$bare => $domain::$bare,)*
                    $($stored::$around(value) => $domain::$around(Form::restore(value)?),)*
                    $($stored::$with { $($field,)* } => $domain::$with { $($field: Form::restore($field)?,)* },)*
                })
            }
        }
    )*};
}

/// Numbers and names that are saved bare.
macro_rules! bare {
    ($($domain:ident($kind:ty),)*) => {$(
        impl Form for $domain {
            type Stored = $kind;
            fn store(&self) -> $kind {
                self.0.clone()
            }
            fn restore(stored: $kind) -> Result<$domain, String> {
                Ok($domain(stored))
            }
        }
    )*};
}

/// Values that are their own saved form.
macro_rules! same {
    ($($kind:ty,)*) => {$(
        impl Form for $kind {
            type Stored = $kind;
            fn store(&self) -> $kind {
                self.clone()
            }
            fn restore(stored: $kind) -> Result<$kind, String> {
                Ok(stored)
            }
        }
    )*};
}

fields! {
    Head as HeadV1 {
        id: String, source: SourceV1, queue: QueueV1, claimed: u64,
        #[serde(default, skip_serializing_if = "is_not")] released: bool,
        #[serde(default, skip_serializing_if = "is_not")] on_hold: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")] key_print: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")] funds: Option<FundsV1>,
        state: JobStateV1,
    }
    Source as SourceV1 {
        folder: String, name: String, bytes: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")] sidecar: Option<String>,
    }
    Queue as QueueV1 {
        name: String, model: String, transport: TransportV1,
        #[serde(default, skip_serializing_if = "is_nothing")] lines_per_batch: u64,
        #[serde(default, skip_serializing_if = "is_no_priority")] priority: i64,
        attempts: u16,
        #[serde(default, skip_serializing_if = "AcceptV1::is_usual")] accept: AcceptV1,
        #[serde(default, skip_serializing_if = "TaskV1::is_usual")] task: TaskV1,
        #[serde(default, skip_serializing_if = "AnswersV1::is_usual")] answers: AnswersV1,
        #[serde(default, skip_serializing_if = "String::is_empty")] credential: String,
        #[serde(default = "layer", skip_serializing_if = "OpenAiLinesV1::is_usual")]
        openai: OpenAiLinesV1,
        #[serde(default, skip_serializing_if = "Option::is_none")] defaults: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")] conversion: Option<ConversionV1>,
        #[serde(default, skip_serializing_if = "Option::is_none")] media_root: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")] deadline: Option<DeadlineV1>,
        #[serde(default, skip_serializing_if = "Option::is_none")] window: Option<WindowV1>,
        #[serde(default, skip_serializing_if = "Option::is_none")] canary: Option<CanaryV1>,
        #[serde(default, skip_serializing_if = "MomentsV1::are_none")] moments: MomentsV1,
        #[serde(default, skip_serializing_if = "is_nothing")] cache_ms: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")] budget: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")] wrong: Option<RefusalV1>,
    }
    Window as WindowV1 {
        release: String,
        #[serde(default, skip_serializing_if = "String::is_empty")] zone: String,
    }
    Canary as CanaryV1 { lines: u64, limit: ToleranceV1, }
    Moments as MomentsV1 {
        #[serde(default, skip_serializing_if = "Option::is_none")] opens: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")] deliver_by: Option<u64>,
    }
    Deadline as DeadlineV1 {
        #[serde(default, skip_serializing_if = "Option::is_none")] by: Option<ByV1>,
        #[serde(default, skip_serializing_if = "Option::is_none")] zone: Option<String>,
        #[serde(default, skip_serializing_if = "TiersV1::are_none")] rescue: TiersV1,
        #[serde(default, skip_serializing_if = "StuckV1::is_usual")] stuck: StuckV1,
        #[serde(default, skip_serializing_if = "Option::is_none")] stuck_after: Option<u64>,
    }
    Tiers as TiersV1 {
        #[serde(default, skip_serializing_if = "is_not")] flex: bool,
        #[serde(default, skip_serializing_if = "is_not")] standard: bool,
    }
    Promise as PromiseV1 {
        #[serde(default, skip_serializing_if = "Option::is_none")] danger: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")] missed: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")] rescue: Option<u64>,
        #[serde(default, skip_serializing_if = "is_nothing")] flex: u64,
        #[serde(default, skip_serializing_if = "is_nothing")] standard: u64,
        #[serde(default, skip_serializing_if = "is_nothing")] uncertain: u64,
        #[serde(default, skip_serializing_if = "is_nothing")] wasted: u64,
        #[serde(default, skip_serializing_if = "is_not")] no_flex: bool,
        #[serde(default, skip_serializing_if = "is_not")] no_standard: bool,
    }
    Aid as AidV1 {
        #[serde(default, skip_serializing_if = "Option::is_none")] left: Option<BatchV1>,
        #[serde(default, skip_serializing_if = "Option::is_none")] back: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")] stuck: Option<String>,
        #[serde(default, skip_serializing_if = "is_zero")] resent: u8,
    }
    Conversion as ConversionV1 {
        unpacked_bytes: u64, unpacked_ratio: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")] template: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")] key_column: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")] csv_delimiter: Option<char>,
        #[serde(default, skip_serializing_if = "is_not")] emit_csv: bool,
    }
    Accept as AcceptV1 { truncated: bool, blocked: bool, empty: bool, }
    Answers as AnswersV1 { check_schema: bool, tokens_max: u32, media: MediaV1, }
    Plan as PlanV1 {
        rows: u64, invalid: u64, bytes: u64, sha256: String,
        #[serde(default, skip_serializing_if = "FamilyV1::is_usual")] family: FamilyV1,
        #[serde(default, skip_serializing_if = "Option::is_none")] asks: Option<u64>,
        planned: u64,
        first_create: Option<u64>, last_result: Option<u64>,
        #[serde(default, skip_serializing_if = "is_not")] cancelled: bool,
        #[serde(default, skip_serializing_if = "Vec::is_empty")] warnings: Vec<String>,
        #[serde(default, skip_serializing_if = "is_not")] prepared: bool,
        #[serde(default, skip_serializing_if = "is_not")] media: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")] canary: Option<TrialV1>,
        #[serde(default, skip_serializing_if = "is_nothing")] reused: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")] promise: Option<PromiseV1>,
    }
    Trial as TrialV1 {
        runs: Vec<RowsV1>, lines: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")] bad: Option<u64>,
        #[serde(default, skip_serializing_if = "is_not")] stopped: bool,
    }
    Delivery as DeliveryV1 { plan: PlanV1, tally: TallyV1, stem: String, delivered: u64, }
    Tally as TallyV1 {
        answered: u64, failed: u64,
        #[serde(default, skip_serializing_if = "is_nothing")] truncated: u64,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        failures: BTreeMap<String, u64>,
        #[serde(default, skip_serializing_if = "is_nothing")] raised: u64,
        tokens: TokensV1,
        #[serde(default, skip_serializing_if = "MediaTallyV1::is_usual")] media: MediaTallyV1,
        #[serde(default, skip_serializing_if = "is_nothing")] wasted: u64,
        #[serde(default, skip_serializing_if = "is_nothing")] unweighed: u64,
    }
    MediaTally as MediaTallyV1 { files: u64, bytes: u64, unreadable: u64, }
    Tokens as TokensV1 { prompt: u64, output: u64, thinking: u64, cached: u64, total: u64, }
    Refusal as RefusalV1 {
        reason: String, message: String, remedy: String, line: Option<u64>, column: Option<u64>,
    }
    Chunk as ChunkV1 {
        no: u32, root: u32, rows: RowsV1, rest: RestV1, attempt: u16, tries: u16,
        #[serde(default, skip_serializing_if = "Option::is_none")] key_print: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")] density: Option<DensityV1>,
        #[serde(default, skip_serializing_if = "Option::is_none")] purse: Option<PurseV1>,
        state: ChunkStateV1, batches: Vec<BatchRecordV1>, last_error: Option<RemoteErrorV1>,
        #[serde(default, skip_serializing_if = "Option::is_none")] aid: Option<AidV1>,
    }
    Rows as RowsV1 { first: u64, last: u64, }
    Rest as RestV1 { left: ShareV1, right: ShareV1, }
    Share as ShareV1 { rows: u64, bytes: u64, }
    Batch as BatchV1 {
        name: String, input: InputV1, created: u64, adopted: bool, remote: RemoteStateV1,
        key_print: String,
        #[serde(default, skip_serializing_if = "is_not")] input_gone: bool,
    }
    RemoteEnd as RemoteEndV1 { state: RemoteStateV1, ended: u64, error: Option<RemoteErrorV1>, }
    RemoteError as RemoteErrorV1 { code: i32, message: String, }
    BatchRecord as BatchRecordV1 {
        name: String, attempt: u16, input: InputV1, state: RemoteStateV1, lines: u64,
        bytes: u64, answered: u64, created: u64, ended: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")] collected: Option<u64>,
        adopted: bool, error: Option<RemoteErrorV1>,
        #[serde(default, skip_serializing_if = "Option::is_none")] key_print: Option<String>,
        #[serde(default, skip_serializing_if = "is_not")] input_gone: bool,
        #[serde(default, skip_serializing_if = "is_nothing")] result_bytes: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")] cost: Option<CostV1>,
    }
    Cost as CostV1 { amount: u64, at: u64, }
    Funds as FundsV1 {
        #[serde(default, skip_serializing_if = "is_not")] over: bool,
        likely: u64, most: u64, currency: String,
    }
    Purse as PurseV1 {
        #[serde(default, skip_serializing_if = "Option::is_none")] held: Option<CostV1>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")] doubtful: Vec<CostV1>,
    }
    Density as DensityV1 {
        per_kb: u32,
        #[serde(default, skip_serializing_if = "is_no_bound")] bound: u32,
        #[serde(default = "all", skip_serializing_if = "are_all")] unbounded: u16,
    }
}

choices! {
    Transport as TransportV1 { Auto, Inline, File, ; ; }
    Task as TaskV1 { Generate, Embed, ; ; }
    Tolerance as ToleranceV1 { ; Percent(u64), Lines(u64), ; }
    Stuck as StuckV1 { Report, Resubmit, Split, ; ; }
    Tier as TierV1 { Flex, Standard, ; ; }
    By as ByV1 { ; At(u16), Within(u64), ; }
    OpenAiLines as OpenAiLinesV1 { Layer, Translate, ; ; }
    Family as FamilyV1 { Native, OpenAi, ; ; }
    Media as MediaV1 { Auto, Files, Inline, ; ; }
    JobState as JobStateV1 {
        Claiming, Planning, ;
        Active(PlanV1), Merging(PlanV1),
        Delivering(DeliveryV1), Cleaning(DeliveryV1), Done(DeliveryV1),
        Refusing(RefusalV1), Failed(RefusalV1), Holding(RefusalV1), Held(RefusalV1), ;
    }
    ChunkState as ChunkStateV1 {
        Settled, ;
        Polling(BatchV1), ;
        Waiting { not_before: u64, },
        Uploading { file: String, },
        Creating { input: InputV1, since: u64, },
        Uncertain { input: InputV1, since: u64, next_probe: u64, until: u64, doubt: DoubtV1, },
        Stuck { input: InputV1, since: u64, },
        Collecting { batch: BatchV1, end: RemoteEndV1, },
        Rescuing { tier: TierV1, since: u64, },
        Split { left: u32, right: u32, },
    }
    Doubt as DoubtV1 { Lost, RateLimited, Released, ; ; }
    Input as InputV1 { Inline, ; File(String), ; }
    RemoteState as RemoteStateV1 {
        Pending, Running, Succeeded, Failed, Cancelled, Expired, ; Unknown(String), ;
    }
}

bare! { Amount(u64), Millis(u64), ChunkNo(u32), Attempt(u16), Row(u64), BatchName(String), FileName(String), }

same! { u64, u32, i64, u16, u8, i32, bool, char, String, BTreeMap<String, u64>, }

mod forms;
#[cfg(test)]
mod tests;
mod usual;

use usual::{all, are_all, is_no_bound, is_no_priority, is_not, is_nothing, is_zero, layer};
