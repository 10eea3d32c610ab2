//! Whether an answer keeps to what its queue asks for, and is to be asked for again if not.
//!
//! Answers say themselves whether they were cut off or blocked (`judged`). Where the queue wants to
//! know more, the row's own request is read for it: a limit that can be raised, a schema. A row that
//! is to be sent again is noted as retryable, whose line holds a response and no error: once no
//! attempts are left, [`Inspector::misfit`] says why it failed. A blocked prompt is never sent again.

use super::index::LineEntry;
use super::result_line::ResultLine;
use super::schema::{Fit, Schemas};
use super::{JobFolder, SpoolError, raise, source};
use crate::engine::job::Terms;
use crate::engine::verdict::Verdict;

/// Looks at the answers of one attempt.
pub struct Inspector {
    terms: Terms,
    folder: JobFolder,
    /// The lines of the job were prepared.
    prepared: bool,
    schemas: Schemas,
}

/// What is made of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// What it means for its row.
    pub verdict: Verdict,
    /// It was cut off, and its request can be sent with a higher limit.
    pub raise: bool,
    /// Its request asks for a schema that can not be used.
    pub unchecked: bool,
}

impl Inspector {
    /// Holds answers to these terms; `prepared` as in [`JobFolder::requests`].
    pub fn new(folder: &JobFolder, terms: Terms, prepared: bool) -> Inspector {
        Inspector { terms, folder: folder.clone(), prepared, schemas: Schemas::default() }
    }

    /// Looks at an answer that was judged by itself; `entry` tells where the request stands, which
    /// went out with its limit doubled `times`.
    ///
    /// # Errors
    /// If the request can not be read.
    pub fn inspect(
        &mut self,
        verdict: Verdict,
        line: &[u8],
        times: u8,
        entry: impl FnOnce() -> Result<LineEntry, SpoolError>,
    ) -> Result<Finding, SpoolError> {
        let as_it_is = Finding { verdict, raise: false, unchecked: false };
        let is_cut = verdict == Verdict::Truncated;
        let fails = is_cut && !self.terms.accepts_truncated;
        let is_read = is_cut || verdict == Verdict::Answered;
        let is_checked = is_read && self.terms.check_schema;
        if !(fails || is_checked) {
            return Ok(as_it_is);
        }
        let request = self.request(&entry()?)?;
        let can_rise = is_cut && raise::can_rise(&request, times, self.terms.tokens_max);
        if fails {
            // Without a higher limit it would end at the same place.
            let verdict = if can_rise { Verdict::Retryable } else { verdict };
            return Ok(Finding { verdict, raise: can_rise, ..as_it_is });
        }
        let response = ResultLine::parse(line).and_then(|line| line.response);
        Ok(match self.schemas.fit(&request, response.unwrap_or("null")) {
            Fit::Fits => as_it_is,
            Fit::Unknown => Finding { unchecked: true, ..as_it_is },
            Fit::Misfit(_) => Finding { verdict: Verdict::Retryable, raise: can_rise, ..as_it_is },
        })
    }

    /// What in an answer does not fit the schema that its request asks for; `None` if it fits.
    ///
    /// # Errors
    /// If the request can not be read.
    pub fn misfit(
        &mut self,
        response: &str,
        entry: &LineEntry,
    ) -> Result<Option<String>, SpoolError> {
        let request = self.request(entry)?;
        Ok(match self.schemas.fit(&request, response) {
            Fit::Misfit(what) => Some(what),
            Fit::Fits | Fit::Unknown => None,
        })
    }

    fn request(&self, entry: &LineEntry) -> Result<Vec<u8>, SpoolError> {
        match self.prepared {
            true => source::request(&self.folder.prepared(), entry),
            false => source::request(&self.folder.input(&self.folder.input_name()?), entry),
        }
    }
}
