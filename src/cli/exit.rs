//! How a verb ends: the exit codes of the contract, and the one form in which errors are told.

use std::fmt;
use std::io;

use crate::config::{ConfigError, KeyProblem};
use crate::control::ClientError;
use crate::spool::SpoolError;
use crate::view::JobView;

/// The exit codes. Scripts and units depend on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// All answered.
    Complete = 0,
    /// Failed.
    Failed = 1,
    /// The command line was not understood.
    Usage = 2,
    /// Some lines are answered, some failed.
    Partial = 3,
    /// There was nothing to do.
    NothingToDo = 4,
    /// The configuration is wrong.
    Configuration = 10,
    /// Another daemon works on the spool.
    Locked = 11,
    /// The API key is missing or refused.
    Credentials = 12,
    /// A job waits for a person.
    Held = 13,
    /// The disk is full.
    NoRoom = 14,
    /// Ctrl-C.
    Interrupted = 130,
}

impl ExitCode {
    /// The code for a job that is over, by what became of it.
    pub fn of_job(job: &JobView) -> ExitCode {
        match job.state.as_str() {
            "held" => ExitCode::Held,
            "failed" => ExitCode::Failed,
            _ => ExitCode::of_lines(job.lines.answered, job.lines.failed),
        }
    }

    /// The code for so many answered and so many failed lines.
    pub fn of_lines(answered: u64, failed: u64) -> ExitCode {
        match (answered, failed) {
            (_, 0) => ExitCode::Complete,
            (0, _) => ExitCode::Failed,
            (_, _) => ExitCode::Partial,
        }
    }

    /// The worse of two: what most needs a person goes first.
    pub fn worst(self, other: ExitCode) -> ExitCode {
        if self.weight() >= other.weight() { self } else { other }
    }

    fn weight(self) -> u8 {
        match self {
            ExitCode::Complete => 0,
            ExitCode::NothingToDo => 1,
            ExitCode::Partial => 2,
            ExitCode::Held => 3,
            ExitCode::Failed => 4,
            ExitCode::NoRoom => 5,
            ExitCode::Credentials => 6,
            ExitCode::Locked => 7,
            ExitCode::Configuration => 8,
            ExitCode::Usage => 9,
            ExitCode::Interrupted => 10,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> std::process::ExitCode {
        std::process::ExitCode::from(code as u8)
    }
}

/// Why a verb failed: the error with its causes, the exit code, and what to try.
///
/// Printed, it is `error: …`, then a line `because: …` for each cause, then `try: …`.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: ExitCode,
    /// What happened.
    pub error: anyhow::Error,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Failure {
    /// A failure with a code.
    pub fn new(code: ExitCode, error: impl Into<anyhow::Error>) -> Failure {
        Failure { code, error: error.into(), remedy: None }
    }

    /// The command line asks for something that makes no sense.
    pub fn usage(message: String) -> Failure {
        Failure::new(ExitCode::Usage, anyhow::Error::msg(message))
    }

    /// Adds what to do about it.
    pub fn with_remedy(self, remedy: impl Into<String>) -> Failure {
        Failure { remedy: Some(remedy.into()), ..self }
    }

    /// Puts what did not come about in front; what was said so far becomes the cause.
    pub fn leading_to(self, what: impl Into<String>) -> Failure {
        Failure { error: self.error.context(what.into()), ..self }
    }

    /// Whether it is only that nobody reads the output any more.
    pub fn is_broken_pipe(&self) -> bool {
        self.error.chain().any(|cause| {
            let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
            let json = cause.downcast_ref::<serde_json::Error>().and_then(|e| e.io_error_kind());
            io.or(json) == Some(io::ErrorKind::BrokenPipe)
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.error.to_string();
        write!(f, "error: {said}")?;
        for cause in self.error.chain().skip(1) {
            let text = cause.to_string();
            // Many errors repeat their cause in their own words.
            if !said.contains(&text) {
                write!(f, "\n  because: {text}")?;
                said = text;
            }
        }
        match &self.remedy {
            Some(remedy) => write!(f, "\n  try: {remedy}"),
            None => Ok(()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::new(ExitCode::Failed, error)
    }
}

impl From<SpoolError> for Failure {
    fn from(error: SpoolError) -> Failure {
        Failure::new(ExitCode::Failed, error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        let remedy = "`gemini-batchd config example` prints every setting with its default";
        Failure::new(ExitCode::Configuration, error).with_remedy(remedy)
    }
}

impl From<KeyProblem> for Failure {
    fn from(error: KeyProblem) -> Failure {
        Failure::new(ExitCode::Credentials, error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let remedy = match &error {
            ClientError::NotRunning { .. } => Some(
                "start it with `gemini-batchd run` (or `systemctl start gemini-batchd`); if it \
                 runs with another configuration, give the same --config or --spool here",
            ),
            ClientError::NoAccess { .. } => {
                Some("run this as the daemon's user, or as a member of its group")
            }
            ClientError::Broken { .. } | ClientError::Refused(_) => None,
        };
        let failure = Failure::new(ExitCode::Failed, error);
        Failure { remedy: remedy.map(str::to_owned), ..failure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_causes_and_what_to_try() {
        let error = io::Error::other("no space left");
        let failure =
            Failure::from(error).leading_to("the file was not dropped").with_remedy("less");
        let text = "error: the file was not dropped\n  because: no space left\n  try: less";
        assert_eq!(failure.to_string(), text);
    }

    #[test]
    fn a_cause_that_was_told_already_is_not_repeated() {
        let source = io::Error::other("no space left");
        let error = SpoolError { action: "write", path: "/x".into(), source };
        assert_eq!(Failure::from(error).to_string(), "error: cannot write /x: no space left");
    }

    #[test]
    fn a_reader_that_went_away_is_recognised_behind_json_too() {
        let pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(Failure::from(pipe()).leading_to("printing").is_broken_pipe());
        assert!(Failure::from(io::Error::from(serde_json::Error::io(pipe()))).is_broken_pipe());
        assert!(!Failure::from(io::Error::other("x")).is_broken_pipe());
    }

    #[test]
    fn the_worst_job_decides() {
        use ExitCode::{Complete, Failed, Held, NothingToDo, Partial};
        assert_eq!(Complete.worst(Partial), Partial);
        assert_eq!(Held.worst(Partial), Held);
        assert_eq!(Failed.worst(Held), Failed);
        assert_eq!(NothingToDo.worst(Complete), NothingToDo);
        assert_eq!(ExitCode::of_lines(5, 0), Complete);
        assert_eq!(ExitCode::of_lines(5, 1), Partial);
        assert_eq!(ExitCode::of_lines(0, 1), Failed);
    }
}
