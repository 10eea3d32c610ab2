//! A job by the first characters of its id.

use crate::engine::ids::JobId;

use super::shortened;

/// Why a text names no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchJob {
    /// Fewer than four characters.
    #[error("{0:?} is too short: give at least {PREFIX_MIN} characters of the job's id")]
    TooShort(String),
    /// No id begins so.
    #[error("no job's id begins with {0:?}; `gemini-batchd status` lists them")]
    Unknown(String),
    /// Several ids begin so.
    #[error(
        "{count} jobs begin with {prefix:?}, such as {first} and {second}; give more characters"
    )]
    Several {
        /// What was given.
        prefix: String,
        /// How many begin so.
        count: usize,
        /// One of them.
        first: String,
        /// Another.
        second: String,
    },
}

/// The one of these ids that begins with `prefix`; upper and lower case are the same.
///
/// # Errors
/// If it is too short, or none or several begin so.
pub fn by_prefix(ids: impl IntoIterator<Item = JobId>, prefix: &str) -> Result<JobId, NoSuchJob> {
    let wanted = prefix.trim().to_ascii_uppercase();
    if wanted.chars().count() < PREFIX_MIN {
        return Err(NoSuchJob::TooShort(shortened(prefix)));
    }
    let mut found = ids.into_iter().filter(|id| id.as_str().starts_with(&wanted));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(first), Some(second)) => Err(NoSuchJob::Several {
            prefix: shortened(prefix),
            count: found.count() + 2,
            first: first.to_string(),
            second: second.to_string(),
        }),
        (None, _) => Err(NoSuchJob::Unknown(shortened(prefix))),
    }
}

/// Shortest prefix of an id that may name a job.
const PREFIX_MIN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_names_a_job_only_if_it_is_long_enough_and_unique() {
        let ids = ["01JD0000000000000000000001", "01JD0000000000000000000002"];
        let ids = ids.map(|id| id.parse::<JobId>().expect("an id"));
        assert_eq!(by_prefix(ids, "01jd0000000000000000000001").expect("unique"), ids[0]);
        let ask = |prefix: &str| by_prefix(ids, prefix).expect_err("none");
        assert!(matches!(ask("01J"), NoSuchJob::TooShort(_)));
        assert!(matches!(ask("01JD"), NoSuchJob::Several { count: 2, .. }));
        assert!(matches!(ask("01ZZ"), NoSuchJob::Unknown(_)));
    }
}
