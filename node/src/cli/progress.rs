//! Progress bars with rate and time left, on a terminal only.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::cli::output::Output;

/// Shows the progress lines of a command until it ends. Phase `idle` takes the bar away until there is more to do.
pub(crate) async fn show(mut told: UnboundedReceiver<Value>, out: Output) {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
    if !out.shows_progress() {
        while told.recv().await.is_some() {}
        return;
    }
    let mut phase = String::new();
    while let Some(line) = told.recv().await {
        let now = line["phase"].as_str().unwrap_or_default();
        if now == "idle" {
            bar.finish_and_clear();
            phase.clear();
            continue;
        }
        if now != phase {
            phase = now.to_owned();
            bar.reset();
            bar.set_message(word(now));
        }
        let (done_items, all_items) = pair(&line["items"]);
        let (done_bytes, all_bytes) = pair(&line["bytes"]);
        if all_bytes > 0 && matches!(now, "transfer" | "verifying" | "packing" | "installing" | "importing") {
            bar.set_style(style(
                "{msg:14} {bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left",
            ));
            bar.set_length(all_bytes.max(done_bytes));
            bar.set_position(done_bytes);
        } else {
            bar.set_style(style("{msg:14} {bar:30} {human_pos}/{human_len} files {per_sec} {eta} left"));
            bar.set_length(all_items.max(done_items));
            bar.set_position(done_items);
        }
    }
    bar.finish_and_clear();
}

fn word(phase: &str) -> &'static str {
    match phase {
        "transfer" => "syncing",
        "scanning" => "looking",
        "recording" => "recording",
        "checking_out" => "writing files",
        "verifying" => "verifying",
        "packing" => "packing",
        "exporting" => "exporting",
        "importing" => "importing",
        "installing" => "installing",
        "fetching" => "fetching",
        _ => "working",
    }
}

fn pair(value: &Value) -> (u64, u64) {
    (value[0].as_u64().unwrap_or(0), value[1].as_u64().unwrap_or(0))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
