//! What a record does not say, because it came later than its version or is so in most of them.
//! What came later than its version is only written where it says something.

use super::*;

/// Records of the first versions had no task: there was only one.
impl Default for TaskV1 {
    fn default() -> TaskV1 {
        TaskV1::Generate
    }
}

impl TaskV1 {
    pub(super) fn is_usual(&self) -> bool {
        matches!(self, TaskV1::Generate)
    }
}

/// Records of the first versions said nothing of what is made of answers.
impl Default for AnswersV1 {
    fn default() -> AnswersV1 {
        Answers::default().store()
    }
}

impl AnswersV1 {
    pub(super) fn is_usual(&self) -> bool {
        matches!(self, Self { check_schema: false, tokens_max: TOKENS_MAX, media: MediaV1::Auto })
    }
}

impl Default for MediaTallyV1 {
    fn default() -> MediaTallyV1 {
        MediaTally::default().store()
    }
}

impl MediaTallyV1 {
    pub(super) fn is_usual(&self) -> bool {
        matches!(self, Self { files: 0, bytes: 0, unreadable: 0 })
    }
}

/// What counts as an answer unless somebody says otherwise; most records are of such queues.
impl Default for AcceptV1 {
    fn default() -> AcceptV1 {
        AcceptV1 { truncated: true, blocked: false, empty: false }
    }
}

impl AcceptV1 {
    pub(super) fn is_usual(&self) -> bool {
        matches!(self, Self { truncated: true, blocked: false, empty: false })
    }
}

pub(super) fn is_nothing(value: &u64) -> bool {
    *value == 0
}

pub(super) fn is_no_priority(value: &i64) -> bool {
    *value == 0
}

/// Records of the first versions had native lines only.
impl Default for FamilyV1 {
    fn default() -> FamilyV1 {
        FamilyV1::Native
    }
}

impl FamilyV1 {
    pub(super) fn is_usual(&self) -> bool {
        matches!(self, FamilyV1::Native)
    }
}

/// Queues of the first versions had no such lines.
pub(super) fn layer() -> OpenAiLinesV1 {
    OpenAiLinesV1::Layer
}

impl OpenAiLinesV1 {
    pub(super) fn is_usual(&self) -> bool {
        matches!(self, OpenAiLinesV1::Layer)
    }
}

pub(super) fn is_not(value: &bool) -> bool {
    !value
}

/// Most files have no such moments.
impl Default for MomentsV1 {
    fn default() -> MomentsV1 {
        Moments::default().store()
    }
}

impl MomentsV1 {
    pub(super) fn are_none(&self) -> bool {
        matches!(self, Self { opens: None, deliver_by: None })
    }
}

pub(super) fn is_zero(value: &u8) -> bool {
    *value == 0
}

/// Most queues rescue nothing.
impl Default for TiersV1 {
    fn default() -> TiersV1 {
        Tiers::default().store()
    }
}

impl TiersV1 {
    pub(super) fn are_none(&self) -> bool {
        matches!(self, Self { flex: false, standard: false })
    }
}

/// Most queues only tell of batches that do not begin.
impl Default for StuckV1 {
    fn default() -> StuckV1 {
        StuckV1::Report
    }
}

impl StuckV1 {
    pub(super) fn is_usual(&self) -> bool {
        matches!(self, StuckV1::Report)
    }
}

/// Most requests set no limit for their answers.
pub(super) fn is_no_bound(value: &u32) -> bool {
    *value == 0
}

/// All of a thousand.
pub(super) fn all() -> u16 {
    1000
}

pub(super) fn are_all(value: &u16) -> bool {
    *value == all()
}
