//! `export` and `import`: all records of jobs as JSON Lines.
//!
//! Both own the store while they run, so no daemon may be running on the spool.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::spool::durable;
use crate::store::{DaemonStore, StoreError, export};

use super::{ExitCode, Failure, Globals, owner, print_json};

/// The verb `export`.
#[derive(Debug, Args)]
pub struct Export {
    /// The file to write; it must not be there yet [default: standard output]
    pub file: Option<PathBuf>,
}

/// The verb `import`.
#[derive(Debug, Args)]
pub struct Import {
    /// What `export` wrote; `-` is standard input
    pub file: PathBuf,
}

impl Export {
    /// Runs the verb.
    ///
    /// # Errors
    /// If the store can not be had, or the file not be written.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let config = globals.load()?;
        if !config.folders.state.is_dir() {
            let message = format!("there are no records in {}", config.folders.state.display());
            return Err(Failure::new(ExitCode::NothingToDo, anyhow::Error::msg(message)));
        }
        owner::check(&config.folders, "export")?;
        let store = open(&config.folders.state)?;
        match &self.file {
            None => {
                export::export(&store, &mut BufWriter::new(&mut *out))?;
            }
            Some(path) => {
                let failed = |error: io::Error| {
                    Failure::from(error).leading_to(format!("{} cannot be written", path.display()))
                };
                let mut file = BufWriter::new(File::create_new(path).map_err(failed)?);
                let lines = export::export(&store, &mut file)?;
                file.get_ref().sync_all().map_err(failed)?;
                if !globals.json {
                    writeln!(out, "{lines} records written to {}", path.display())?;
                }
            }
        }
        Ok(ExitCode::Complete)
    }
}

impl Import {
    /// Runs the verb.
    ///
    /// # Errors
    /// If the export can not be understood, or a job is there already and differs.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let config = globals.load()?;
        owner::check(&config.folders, "import")?;
        let mut reader: Box<dyn BufRead> = if self.file == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            let file = File::open(&self.file).map_err(|error| {
                Failure::from(error).leading_to(format!("{} cannot be read", self.file.display()))
            })?;
            Box::new(BufReader::new(file))
        };
        durable::make_folder(&config.folders.state)?;
        let mut store = open(&config.folders.state)?;
        let done = export::import(&mut reader, &mut store)?;
        if globals.json {
            print_json(
                out,
                &serde_json::json!({"jobs": done.jobs, "present": done.present, "notes": done.notes}),
            )?;
        } else {
            writeln!(out, "{} jobs are new, {} were there already", done.jobs, done.present)?;
        }
        Ok(ExitCode::Complete)
    }
}

fn open(state: &Path) -> Result<DaemonStore, Failure> {
    let opened = DaemonStore::open(state, DaemonStore::FREE_BYTES_MIN)?;
    if let Some(quarantine) = &opened.quarantined {
        // Only the daemon rebuilds jobs from their working folders.
        let message = format!(
            "the job store could not be read ({}) and lies in {} now",
            quarantine.reason,
            quarantine.folder.display()
        );
        return Err(Failure::new(ExitCode::Failed, anyhow::Error::msg(message)).with_remedy(
            "start the daemon: it rebuilds the jobs from their working folders; then try again",
        ));
    }
    Ok(opened.store)
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let locked = matches!(error, StoreError::Locked { .. });
        let code = match error.is_about_room() {
            true => ExitCode::NoRoom,
            false if locked => ExitCode::Locked,
            false => ExitCode::Failed,
        };
        Failure::new(code, error)
    }
}
