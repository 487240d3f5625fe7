//! `posthaste status --watch`: the same again and again, on a screen, or block after block where there is none.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime};

use posthaste::config::Config;
use posthaste::{Error, Result};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::super::output::say;
use super::look::{Looker, Seen};
use super::screen::{Screen, draw, sentence};
use super::{report, units};

/// Shows until told to stop. What fails at first is an error; what fails later is shown, and tried again.
pub(super) async fn run(config: Config, every: Duration) -> Result<ExitCode> {
    let stop = told_to_stop()?;
    let mut looker = Looker::new(config);
    let Some(first) = stop.run_until_cancelled(looker.look()).await else {
        return Ok(ExitCode::SUCCESS);
    };
    let seen = looker.watch(first?, every);
    if has_screen() {
        on_screen(seen, &stop).await?;
    } else {
        in_blocks(seen, &stop).await?;
    }
    Ok(ExitCode::SUCCESS)
}

fn has_screen() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    io::stdout().is_terminal() && !is_dumb
}

/// Until told to stop, or until nobody reads any more.
async fn in_blocks(mut seen: watch::Receiver<Seen>, stop: &CancellationToken) -> Result<()> {
    loop {
        let text = block(&seen.borrow_and_update(), SystemTime::now());
        match say(&text) {
            Err(Error::Io(_, error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            said => said?,
        }
        if stop.run_until_cancelled(seen.changed()).await.is_none() {
            return Ok(());
        }
    }
}

/// The time, then what is known, then an empty line.
fn block(seen: &Seen, now: SystemTime) -> String {
    let time = units::moment(now);
    match &seen.lost {
        Some(lost) => format!("{time}\n{}\n", sentence(lost, now)),
        None => format!("{time}\n{}\n", report::text(&seen.reading, now)),
    }
}

async fn on_screen(mut seen: watch::Receiver<Seen>, stop: &CancellationToken) -> Result<()> {
    let cannot = |error| Error::Io("the terminal".to_owned(), error);
    // First, so that what went half way is undone, too. A panic restores the terminal by itself.
    let _restore = Restore;
    let mut terminal = ratatui::try_init().map_err(cannot)?;
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut events = events();
    loop {
        let known = seen.borrow_and_update().clone();
        let screen = Screen {
            reading: &known.reading,
            lost: known.lost.as_ref(),
            now: SystemTime::now(),
            colour,
        };
        let drawn = terminal.draw(|frame| draw(&screen, frame.area(), frame.buffer_mut()));
        drawn.map_err(cannot)?;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = seen.changed() => {}
            event = events.recv() => match event {
                Some(Event::Key(key)) if !quits(key) => {}
                // Resized: it is drawn anew.
                Some(event) if !matches!(event, Event::Key(_)) => {}
                // Told to quit; or there is no keyboard any more.
                _ => return Ok(()),
            },
            // The clock goes on.
            () = tokio::time::sleep(SECOND) => {}
        }
    }
}

struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        // There may be no terminal any more.
        let _ = ratatui::try_restore();
    }
}

/// What comes from the keyboard, and sizes. Reading blocks, so a thread does it; it ends with the program.
fn events() -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(16);
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receiver
}

fn quits(key: KeyEvent) -> bool {
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    let is_wanted = match key.code {
        KeyCode::Esc | KeyCode::Char('q' | 'Q') => true,
        KeyCode::Char('c' | 'd') => is_control,
        _ => false,
    };
    is_wanted && key.kind == KeyEventKind::Press
}

/// Cancelled by Ctrl-C, SIGTERM, or the end of the terminal.
fn told_to_stop() -> Result<CancellationToken> {
    let cannot = |error| Error::Io("listening for signals".to_owned(), error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(cannot)?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        told.cancel();
    });
    Ok(stop)
}

const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_escape_and_control_c_quit_and_nothing_else_does() {
        let key = |code, modifiers| quits(KeyEvent::new(code, modifiers));
        for code in [KeyCode::Esc, KeyCode::Char('q'), KeyCode::Char('Q')] {
            assert!(key(code, KeyModifiers::NONE));
        }
        assert!(key(KeyCode::Char('c'), KeyModifiers::CONTROL));
        for code in [KeyCode::Char('c'), KeyCode::Enter, KeyCode::Up] {
            assert!(!key(code, KeyModifiers::NONE));
        }
    }
}
