//! The faults that can be switched on, each with a budget.
//!
//! All are off by default. They are read from TOML or JSON, where an unknown name is an error, and
//! can be replaced while the emulator runs. The server asks [`Budget::take`] at the moment a fault
//! would strike; what is left of a budget is part of the server's state.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Every fault there is. See each field for when it strikes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Creates answered 429 without details; no batch exists.
    pub create_429: Budget,
    /// Creates answered 503; no batch exists.
    pub create_503_before: Budget,
    /// Creates answered 503; the batch exists.
    pub create_503_after: Budget,
    /// Creates whose connection is cut; no batch exists.
    pub create_drop_before: Budget,
    /// Creates whose connection is cut; the batch exists.
    pub create_drop_after: Budget,
    /// Creates with a row that contains this text are refused with an opaque 400.
    pub create_opaque_400: Option<String>,
    /// Not a fault: tokens that may be enqueued for a model, in open batches and the new one; a create
    /// beyond them is answered 429 without details. 0: any number. A token is four bytes.
    pub enqueued_tokens: u64,
    /// Batches of these models, from now on created, take so many times as long.
    pub slow_models: BTreeMap<String, u32>,
    /// Batches with a row that contains a text end FAILED as a whole.
    pub poison: Option<Poison>,

    /// Calls answered with the HTML page of a front end.
    pub html_502: Option<OnCall>,
    /// Calls answered 401 or 403 whatever their key.
    pub denied: Option<Denied>,
    /// Calls whose answer is held back.
    pub slow: Option<Slow>,
    /// Errors come as an array of one.
    pub array_errors: bool,

    /// Calls for single answers on the flex tier that are turned away with 503.
    pub flex_shed_503: Budget,
    /// The same with 429.
    pub flex_shed_429: Budget,
    /// The flex tier is not there.
    pub flex_refused: bool,
    /// Calls for single answers in a minute of virtual time, whatever their tier; 0: any number.
    pub asks_per_minute: u32,
    /// Calls for single answers whose connection is cut; nothing is answered or paid for.
    pub ask_drop_before: Budget,
    /// The same when they are answered and paid for.
    pub ask_drop_after: Budget,
    /// Calls for single answers that are answered with 500 after that.
    pub ask_500_after: Budget,

    /// New batches do not appear in lists for so long, virtual ms.
    pub list_lag_ms: u64,
    /// First pages of lists that are empty but for a token.
    pub list_empty_first_page: Budget,
    /// Lists show every row of a batch as pending, even when it has ended.
    pub list_stale_stats: bool,
    /// Lists asked for without `pageSize` are empty.
    pub list_needs_page_size: bool,
    /// The OpenAI-compatible layer has no list of its batches.
    pub openai_list_missing: bool,

    /// Batches, from now on created, that never leave PENDING.
    pub stuck_pending: Budget,
    /// Counts of a running batch do not move.
    pub frozen_stats: bool,
    /// Ended batches show no output for so many gets each.
    pub no_output_gets: u32,
    /// Batches, from now on created, that are gone when they would start.
    pub vanish: Budget,
    /// Batches that end otherwise than asked, with output for a part of their rows.
    pub ends: Option<Ends>,

    /// Result rows left out.
    pub missing: EveryNth,
    /// Result rows written twice.
    pub repeated: EveryNth,
    /// Rows added that nobody asked for.
    pub foreign: EveryNth,
    /// Rows that fail with code 13.
    pub code_13: EveryNth,
    /// Code 13 strikes a request only the first time it is seen.
    pub code_13_first_only: bool,
    /// Rows whose prompt is blocked.
    pub blocked: EveryNth,
    /// Answers cut short by the token limit.
    pub truncated: EveryNth,
    /// Answers that do not fit the schema asked for.
    pub misfit: EveryNth,
    /// Rows that come back without their key.
    pub keyless: EveryNth,
    /// Batches whose results come in another order.
    pub shuffled: Budget,

    /// Downloads whose connection is cut.
    pub download_cut: Option<AfterBytes>,
    /// Downloads that end early without any sign of it.
    pub download_short: Option<AfterBytes>,
    /// Not a fault: `Range` of downloads is honoured.
    pub download_ranges: bool,

    /// Upload starts refused because the storage is full.
    pub upload_start_429: Budget,
    /// Upload starts answered 200 with an error in the body and no session.
    pub upload_start_no_url: Budget,
    /// Upload starts with the media type `jsonl` are refused.
    pub upload_jsonl_type_refused: bool,
    /// Pieces refused with 503; none of their bytes are kept.
    pub upload_refused: Budget,
    /// Pieces whose connection is cut once the file has so many bytes.
    pub upload_cut: Option<AfterBytes>,
    /// Pieces and queries that find their session lost, for good.
    pub upload_session_lost: Budget,
    /// Final answers of uploads that are lost; the file exists.
    pub upload_finalize_lost: Budget,

    /// Not a fault: films stay PROCESSING for so long after their upload, virtual ms.
    pub processing_ms: u64,
    /// Films that end FAILED after that.
    pub processing_failed: Budget,
}

/// How often a fault strikes: a number, or `"always"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Budget {
    /// Not at all.
    #[default]
    Never,
    /// So many times more; never 0.
    Times(u32),
    /// Every time.
    Always,
}

impl Budget {
    /// Whether the fault strikes now; counts it if so.
    pub fn take(&mut self) -> bool {
        match *self {
            Budget::Never => false,
            Budget::Always => true,
            Budget::Times(times) => {
                *self = Budget::times(times.saturating_sub(1));
                times > 0
            }
        }
    }

    /// So many times.
    pub fn times(times: u32) -> Budget {
        if times == 0 { Budget::Never } else { Budget::Times(times) }
    }

    fn always() -> Budget {
        Budget::Always
    }
}

impl Serialize for Budget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Budget::Never => serializer.serialize_u32(0),
            Budget::Times(times) => serializer.serialize_u32(*times),
            Budget::Always => serializer.serialize_str("always"),
        }
    }
}

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Budget, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number of times, or \"always\"")]
        enum Form {
            Times(u32),
            Word(Word),
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Word {
            Always,
            Never,
        }
        Ok(match Form::deserialize(deserializer)? {
            Form::Times(times) => Budget::times(times),
            Form::Word(Word::Always) => Budget::Always,
            Form::Word(Word::Never) => Budget::Never,
        })
    }
}

/// Rows at regular distances in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EveryNth {
    /// The rows `every`, 2 × `every`, … are struck; 0 is none.
    pub every: u64,
    /// In so many batches.
    #[serde(default = "Budget::always")]
    pub times: Budget,
}

impl Default for EveryNth {
    fn default() -> EveryNth {
        EveryNth { every: 0, times: Budget::Always }
    }
}

impl EveryNth {
    /// The distance for the next batch, 0 if its rows are spared; counts the batch.
    pub fn take(&mut self) -> u64 {
        if self.every > 0 && self.times.take() { self.every } else { 0 }
    }
}

/// See [`Faults::poison`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Poison {
    /// The text that a row contains.
    pub text: String,
    /// The gRPC code the batch ends with.
    #[serde(default = "Poison::code")]
    pub code: i32,
    /// The message it ends with; it does not name the row.
    #[serde(default = "Poison::message")]
    pub message: String,
}

impl Poison {
    fn code() -> i32 {
        3
    }

    fn message() -> String {
        "Request contains an invalid argument.".to_owned()
    }
}

/// The calls that faults can be aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallKind {
    /// Creating a batch.
    Create,
    /// Asking for a batch.
    Get,
    /// Listing batches.
    List,
    /// Cancelling a batch.
    Cancel,
    /// Deleting a batch.
    Delete,
    /// Starting an upload.
    UploadStart,
    /// Anything with an upload session: pieces, queries, cancels.
    Upload,
    /// Asking for a file.
    FileGet,
    /// Listing files.
    FileList,
    /// Deleting a file.
    FileDelete,
    /// Downloading results.
    Download,
    /// Asking for a model.
    Model,
    /// Asking for the answer to a single request.
    Ask,
}

/// A fault on one kind of call, or on all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnCall {
    /// The kind of call; all if missing.
    #[serde(default)]
    pub call: Option<CallKind>,
    /// How often.
    #[serde(default = "Budget::always")]
    pub times: Budget,
}

/// See [`Faults::denied`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denied {
    /// 401 or 403; anything else counts as 403.
    pub status: u16,
    /// The kind of call; all if missing.
    #[serde(default)]
    pub call: Option<CallKind>,
    /// How often.
    #[serde(default = "Budget::always")]
    pub times: Budget,
}

/// See [`Faults::slow`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slow {
    /// How long an answer is held back, real ms.
    pub ms: u64,
    /// The kind of call; all if missing.
    #[serde(default)]
    pub call: Option<CallKind>,
    /// How often.
    #[serde(default = "Budget::always")]
    pub times: Budget,
}

/// A fault that strikes after some bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AfterBytes {
    /// Bytes that still go through.
    pub after: u64,
    /// How often.
    #[serde(default = "Budget::always")]
    pub times: Budget,
}

/// See [`Faults::ends`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ends {
    /// How the batch ends.
    pub state: Ending,
    /// The part of the rows that was served before, 0 to 1; with 0 there is no output at all.
    #[serde(default)]
    pub fraction: f64,
    /// How many batches.
    #[serde(default = "Budget::always")]
    pub times: Budget,
}

/// Terminal states other than success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// The batch failed.
    Failed,
    /// Somebody else cancelled it.
    Cancelled,
    /// Its time ran out.
    Expired,
}

/// Whether a fault aimed at `aim` strikes a call of this kind; counts it if so.
pub fn strikes(aim: Option<CallKind>, times: &mut Budget, call: CallKind) -> bool {
    aim.is_none_or(|aim| aim == call) && times.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_fault_is_an_error() {
        let error = toml::from_str::<Faults>("create_428 = 1").expect_err("refused");
        assert!(error.to_string().contains("create_428"), "{error}");
        let error = serde_json::from_str::<Faults>(r#"{"slow":{"ms":1,"cal":"get"}}"#);
        assert!(error.expect_err("refused").to_string().contains("cal"));
    }

    #[test]
    fn faults_are_read_from_toml() {
        let text = r#"
            create_429 = 2
            create_503_after = "always"
            html_502 = { call = "upload_start", times = 1 }
            missing = { every = 10 }
            ends = { state = "expired", fraction = 0.5, times = 1 }
            poison = { text = "arsenic" }
        "#;
        let faults: Faults = toml::from_str(text).expect("read");
        assert_eq!(faults.create_429, Budget::Times(2));
        assert_eq!(faults.create_503_after, Budget::Always);
        assert_eq!(faults.missing, EveryNth { every: 10, times: Budget::Always });
        assert_eq!(faults.poison.as_ref().map(|poison| poison.code), Some(3));
        let again = serde_json::to_string(&faults).expect("written");
        assert_eq!(serde_json::from_str::<Faults>(&again).expect("read"), faults);
    }

    #[test]
    fn a_budget_runs_out() {
        let mut budget = Budget::times(2);
        assert!([budget.take(), budget.take()].iter().all(|struck| *struck));
        assert!(!budget.take());
        assert_eq!(budget, Budget::Never);
    }
}
