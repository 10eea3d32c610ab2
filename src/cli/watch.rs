//! `status --watch`: the same screen, drawn anew each second, until q or Ctrl-C.
//!
//! It draws on the terminal's other screen and gives the first one back, whatever ends it.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::{cursor, execute, queue, terminal};
use futures_util::StreamExt;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::control::ClientError;

use super::figures::{Line, Look, Tone};
use super::jobs_told::{details, overview};
use super::{ExitCode, Failure, runtime, status};

/// Shows everything, or one job, until a person has seen enough.
///
/// # Errors
/// If there is no terminal, no daemon at the start, or the job is not known.
pub fn watch(config: &Config, job: Option<&str>, json: bool) -> Result<ExitCode, Failure> {
    if json {
        return Err(Failure::usage("--watch draws on a terminal; it has no JSON".to_owned())
            .with_remedy(
                "`gemini-batchd events --follow --json` tells what happens, line by line",
            ));
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::usage("--watch needs a terminal, and this is none".to_owned())
            .with_remedy(
                "`gemini-batchd status` shows the same once, `gemini-batchd events --follow` what \
                 happens",
            ));
    }
    status::reach(config)?;
    runtime()?.block_on(async {
        // Before the screen is taken: a job nobody knows is told as usual.
        let first = look_at(config, job, &Look::of_stdout()).await?;
        let mut screen = Screen::take()?;
        let ended = screen.run(config, job, first).await;
        drop(screen);
        ended
    })
}

/// What is to be seen at one moment.
async fn look_at(
    config: &Config,
    job: Option<&str>,
    look: &Look,
) -> Result<Vec<Line>, ClientError> {
    let client = status::connect(config)?;
    match job {
        None => Ok(overview(&client.status().await?, look)),
        Some(prefix) => Ok(details(&client.job(prefix).await?, look)),
    }
}

/// The terminal, while it is ours.
struct Screen {
    out: io::Stdout,
    /// The first line shown.
    top: usize,
    lines: Vec<Line>,
    /// Why what is shown is not of now.
    trouble: Option<String>,
}

/// What a key means.
enum Wish {
    End,
    Redraw,
    Nothing,
}

impl Screen {
    fn take() -> io::Result<Screen> {
        // Whoever panics does so with the terminal as it was.
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |what| {
            give_back();
            told(what);
        }));
        let screen = Screen { out: io::stdout(), top: 0, lines: Vec::new(), trouble: None };
        terminal::enable_raw_mode()?;
        execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    async fn run(
        &mut self,
        config: &Config,
        job: Option<&str>,
        first: Vec<Line>,
    ) -> Result<ExitCode, Failure> {
        let mut keys = EventStream::new();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut next = tokio::time::interval(LOOK_EVERY);
        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        next.tick().await;
        self.lines = first;
        self.draw()?;
        loop {
            tokio::select! {
                key = keys.next() => match key {
                    Some(Ok(key)) => match self.heed(&key) {
                        Wish::End => return Ok(ExitCode::Complete),
                        Wish::Redraw => self.draw()?,
                        Wish::Nothing => {}
                    },
                    // The terminal is gone.
                    Some(Err(_)) | None => return Ok(ExitCode::Complete),
                },
                _ = interrupt.recv() => return Ok(ExitCode::Complete),
                _ = terminate.recv() => return Ok(ExitCode::Complete),
                _ = hangup.recv() => return Ok(ExitCode::Complete),
                _ = next.tick() => {
                    match look_at(config, job, &Look::of_stdout()).await {
                        Ok(lines) => (self.lines, self.trouble) = (lines, None),
                        Err(error) => self.trouble = Some(error.to_string()),
                    }
                    self.draw()?;
                }
            }
        }
    }

    fn heed(&mut self, event: &Event) -> Wish {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.heed_key(key),
            Event::Resize(_, _) => Wish::Redraw,
            Event::Key(_) | Event::Mouse(_) | Event::FocusGained | Event::FocusLost => {
                Wish::Nothing
            }
        }
    }

    fn heed_key(&mut self, key: &KeyEvent) -> Wish {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let page = rows().saturating_sub(2);
        self.top = match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Wish::End,
            KeyCode::Char('c' | 'd') if control => return Wish::End,
            KeyCode::Up | KeyCode::Char('k') => self.top.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.top + 1,
            KeyCode::PageUp => self.top.saturating_sub(page),
            KeyCode::PageDown | KeyCode::Char(' ') => self.top + page,
            KeyCode::Home | KeyCode::Char('g') => 0,
            _ => return Wish::Nothing,
        };
        Wish::Redraw
    }

    /// Draws every row of the screen, and leaves nothing of what stood there.
    fn draw(&mut self) -> io::Result<()> {
        let look = Look::of_stdout();
        let rows = rows();
        let mut foot = Line::default();
        let mut room = rows.saturating_sub(1);
        if let Some(trouble) = &self.trouble {
            foot = Line::of(Tone::Bad, format!("NOT OF NOW: {trouble}; tried again each second"));
        }
        let most = self.lines.len().saturating_sub(room);
        self.top = self.top.min(most);
        if foot == Line::default() {
            let below = self.lines.len().saturating_sub(self.top + room);
            let keys = if self.lines.len() > room { "; arrows and Page Down move" } else { "" };
            let more = if below > 0 { format!("{below} more lines; ") } else { String::new() };
            foot = Line::of(Tone::Faint, format!("{more}q ends{keys}"));
        }
        room = room.min(self.lines.len().saturating_sub(self.top));
        queue!(self.out, terminal::BeginSynchronizedUpdate, cursor::MoveTo(0, 0))?;
        for line in &self.lines[self.top..self.top + room] {
            write!(self.out, "{}", line.shown(&look))?;
            queue!(self.out, terminal::Clear(terminal::ClearType::UntilNewLine))?;
            write!(self.out, "\r\n")?;
        }
        queue!(self.out, terminal::Clear(terminal::ClearType::FromCursorDown))?;
        let last = u16::try_from(rows.saturating_sub(1)).unwrap_or(u16::MAX);
        queue!(self.out, cursor::MoveTo(0, last))?;
        write!(self.out, "{}", foot.shown(&look))?;
        queue!(self.out, terminal::EndSynchronizedUpdate)?;
        self.out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// The terminal as it was. If it is gone, there is nothing to give back.
fn give_back() {
    drop(execute!(io::stdout(), cursor::Show, terminal::LeaveAlternateScreen));
    drop(terminal::disable_raw_mode());
}

fn rows() -> usize {
    terminal::size().map_or(24, |(_, rows)| usize::from(rows)).max(2)
}

const LOOK_EVERY: Duration = Duration::from_secs(1);
