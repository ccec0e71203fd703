//! The live view, drawn.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Sparkline, Table};

use super::model::Model;

const GOOD: Style = Style::new().fg(Color::Green);
const BAD: Style = Style::new().fg(Color::Red);
const CAUTION: Style = Style::new().fg(Color::Yellow);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, model: &Model, endpoint: &str) {
    let trials = u16::try_from(model.flips.len().min(5)).unwrap_or(5);
    let [head, charts, reasons, pairs, flips, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(5),
        Constraint::Length(7),
        Constraint::Min(4),
        Constraint::Length(if trials == 0 { 0 } else { trials + 2 }),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(header(model, endpoint), head);
    let [allowed, denied] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(charts);
    let rate = model.rates.back().copied().unwrap_or_default();
    chart(
        frame,
        allowed,
        &format!(" allowed {}/s ", short(rate.0)),
        GOOD,
        model.rates.iter().map(|r| r.0),
    );
    chart(
        frame,
        denied,
        &format!(" denied {}/s ", short(rate.1)),
        BAD,
        model.rates.iter().map(|r| r.1),
    );
    by_reason(frame, reasons, model);
    by_pair(frame, pairs, model);
    if trials > 0 {
        on_trial(frame, flips, model);
    }
    let keys = Line::styled("q quit   c clear the denials", DIM);
    frame.render_widget(Paragraph::new(keys), foot);
}

fn header<'a>(model: &'a Model, endpoint: &'a str) -> Paragraph<'a> {
    let mut first = vec![Span::styled("portcullis authz ", BOLD), Span::raw(endpoint)];
    if let Some(why) = &model.lost {
        first.push(Span::styled(format!("  not answering: {why}"), BAD));
    }
    if model.reload_failing {
        first.push(Span::styled(
            "  the last change was refused: `/readyz` and the log say why",
            CAUTION,
        ));
    }
    let snapshot = match &model.revision {
        Some(revision) => format!(
            "snapshot {revision}, {} policies, {} old",
            short(model.policies.unwrap_or_default()),
            age(model.age.unwrap_or_default())
        ),
        None => "no snapshot: everything is denied".to_owned(),
    };
    let latency = match model.latency {
        Some([half, ninety, most]) => format!(
            "latency p50 {}  p90 {}  p99 {}",
            time(half),
            time(ninety),
            time(most)
        ),
        None => "latency -".to_owned(),
    };
    Paragraph::new(vec![
        Line::from(first),
        Line::from(vec![
            Span::raw(snapshot),
            Span::styled("   ", DIM),
            Span::raw(latency),
        ]),
    ])
}

fn chart(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &str,
    style: Style,
    rates: impl DoubleEndedIterator<Item = f64>,
) {
    let width = usize::from(area.width.saturating_sub(2));
    // Tenths, so that less than one a second shows.
    let mut data: Vec<u64> = rates.rev().take(width).map(tenths).collect();
    data.reverse();
    let block = Block::new().borders(Borders::ALL).title(title.to_owned());
    frame.render_widget(
        Sparkline::default().block(block).style(style).data(data),
        area,
    );
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a saturating cast of a rate for a chart"
)]
fn tenths(rate: f64) -> u64 {
    (rate * 10.0) as u64
}

fn by_reason(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let rows = model.reasons.iter().map(|(decision, reason, rate)| {
        let style = if decision == "allow" { GOOD } else { BAD };
        Row::new([
            format!("{}/s", short(*rate)),
            decision.clone(),
            reason.clone(),
        ])
        .style(style)
    });
    let widths = [
        Constraint::Length(10),
        Constraint::Length(6),
        Constraint::Min(10),
    ];
    let block = Block::new().borders(Borders::ALL).title(" reasons ");
    frame.render_widget(Table::new(rows, widths).block(block), area);
}

fn by_pair(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let rows = model.pairs().into_iter().map(|(from, to, why, pair)| {
        Row::new([
            pair.count.to_string(),
            from.to_owned(),
            to.to_owned(),
            why.to_owned(),
            pair.asked.clone(),
        ])
    });
    let widths = [
        Constraint::Length(7),
        Constraint::Fill(2),
        Constraint::Fill(2),
        Constraint::Fill(3),
        Constraint::Fill(2),
    ];
    let heading = Row::new(["times", "from", "to", "why", "last request"]).style(DIM);
    let block = Block::new()
        .borders(Borders::ALL)
        .title(" denied since the start of this view ");
    frame.render_widget(Table::new(rows, widths).header(heading).block(block), area);
}

fn on_trial(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let rows = model.flips.iter().map(|(policy, way, count)| {
        Row::new([short(*count), way.clone(), policy.clone()]).style(CAUTION)
    });
    let widths = [
        Constraint::Length(9),
        Constraint::Length(15),
        Constraint::Min(10),
    ];
    let block = Block::new()
        .borders(Borders::ALL)
        .title(" would change, by policy on trial ");
    frame.render_widget(Table::new(rows, widths).block(block), area);
}

/// `12.3`, `1.2k`, `3.4M`.
fn short(number: f64) -> String {
    if number >= 1e6 {
        format!("{:.1}M", number / 1e6)
    } else if number >= 1e4 {
        format!("{:.1}k", number / 1e3)
    } else if number.fract().abs() < 0.05 || number >= 100.0 {
        format!("{number:.0}")
    } else {
        format!("{number:.1}")
    }
}

/// `85 us`, `1.2 ms`, `3.0 s`.
fn time(seconds: f64) -> String {
    if seconds < 1e-3 {
        format!("{:.0} us", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.1} s")
    }
}

/// `42 s`, `5 min`, `3 h`, `2 d`.
fn age(seconds: f64) -> String {
    for (unit, length) in [("d", 86400.0), ("h", 3600.0), ("min", 60.0)] {
        if seconds >= 2.0 * length {
            return format!("{:.0} {unit}", (seconds / length).floor());
        }
    }
    format!("{seconds:.0} s")
}
