//! `portcullis authz top`: a live view of a running service.
//!
//! ```text
//! /metrics, each interval -> rates, latency, snapshot, trials  \
//!                                                               model -> screen
//! /decisions?denied=true  -> who is denied what, and why       /
//! ```

mod exposition;
mod model;
mod screen;

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use portcullis_authz::endpoint::Endpoint;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::{DefaultTerminal, Terminal};

use self::model::Model;
use super::management::{self, Lines};
use super::serve::runtime;
use super::tail::Told;
use crate::args::TopArgs;
use crate::exit::Exit;
use crate::out;

/// Rest between two drawings, unless a key is pressed.
const FRAME: Duration = Duration::from_millis(250);
/// Rest between attempts to follow a service that went away.
const AGAIN: Duration = Duration::from_secs(1);
/// Size of what `--once` prints, in columns and lines.
const PRINTED: (u16, u16) = (120, 40);

type Shared = Arc<Mutex<Model>>;

/// Shows the view until `q`, Escape or Ctrl-C; with `--once` prints it after one interval.
///
/// # Errors
/// When the service cannot be reached, or there is no terminal.
pub fn run(args: &TopArgs) -> anyhow::Result<Exit> {
    if !args.once && !std::io::stdout().is_terminal() {
        bail!("standard output is no terminal; `--once` prints the view instead");
    }
    let endpoint = management::endpoint(&args.management)?;
    let interval = Duration::from_secs_f64(args.interval.clamp(0.1, 3600.0));
    let runtime = runtime()?;
    let model = Shared::default();
    let start = Instant::now();
    // A service that is not there is told at once, in words; later it may come and go.
    runtime.block_on(scrape(&endpoint, &model, start))?;
    runtime.spawn(denials(endpoint.clone(), Arc::clone(&model)));
    if args.once {
        runtime.block_on(async {
            tokio::time::sleep(interval).await;
            scrape(&endpoint, &model, start).await
        })?;
        return print(&model, &endpoint);
    }
    let scraped = (endpoint.clone(), Arc::clone(&model));
    runtime.spawn(async move {
        let (endpoint, model) = scraped;
        loop {
            tokio::time::sleep(interval).await;
            if let Err(error) = scrape(&endpoint, &model, start).await {
                lock(&model).lost = Some(format!("{error:#}"));
            }
        }
    });
    let mut terminal = ratatui::try_init()?;
    let shown = show(&mut terminal, &model, &endpoint);
    ratatui::restore();
    shown?;
    Ok(Exit::Yes)
}

fn lock(model: &Shared) -> std::sync::MutexGuard<'_, Model> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn scrape(endpoint: &Endpoint, model: &Shared, start: Instant) -> anyhow::Result<()> {
    let bytes = management::get(endpoint, "/metrics").await?;
    let now = start.elapsed().as_secs_f64();
    lock(model).scrape(&String::from_utf8_lossy(&bytes), now);
    Ok(())
}

async fn denials(endpoint: Endpoint, model: Shared) {
    loop {
        if let Ok(response) = management::open(&endpoint, "/decisions?denied=true").await {
            let mut lines = Lines::of(response);
            while let Ok(Some(line)) = lines.next().await {
                if let Ok(told) = serde_json::from_slice::<Told>(&line) {
                    lock(&model).denied(&told);
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn show(
    terminal: &mut DefaultTerminal,
    model: &Shared,
    endpoint: &Endpoint,
) -> std::io::Result<()> {
    let endpoint = endpoint.to_string();
    loop {
        terminal.draw(|frame| screen::draw(frame, &lock(model), &endpoint))?;
        if !event::poll(FRAME)? {
            continue;
        }
        let Event::Key(key) = event::read()? else {
            continue;
        };
        if key.kind != KeyEventKind::Press {
            continue;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
            KeyCode::Char('c') => lock(model).forget(),
            _ => {}
        }
    }
}

/// The view as text.
fn print(model: &Shared, endpoint: &Endpoint) -> anyhow::Result<Exit> {
    let (width, height) = PRINTED;
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let endpoint = endpoint.to_string();
    let Ok(_) = terminal.draw(|frame| screen::draw(frame, &lock(model), &endpoint));
    let mut stdout = out::stdout();
    let buffer = terminal.backend().buffer();
    for cells in buffer.content().chunks(usize::from(width)) {
        let line: String = cells.iter().map(|cell| cell.symbol()).collect();
        writeln!(stdout, "{}", line.trim_end())?;
    }
    stdout.flush()?;
    Ok(Exit::Yes)
}
