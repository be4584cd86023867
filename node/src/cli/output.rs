//! Answers on standard output, everything else on standard error.

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::{Arc, OnceLock};

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use crate::cli::args::Global;
use crate::cli::foreign::{shown, shown_all};
use crate::cli::render;
use crate::failure::{Exit, Failure};

/// Where and how a command speaks.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    /// Why standard output did not take what it was given.
    lost: Arc<OnceLock<String>>,
}

impl Output {
    /// For words that could not be read, and so neither could the flags among them.
    pub(crate) fn unread(args: impl Iterator<Item = std::ffi::OsString>) -> Self {
        Self { json: args.take_while(|arg| arg != "--").any(|arg| arg == "--json"), quiet: false, lost: Arc::default() }
    }

    pub(crate) fn new(global: &Global) -> Self {
        if global.no_color {
            anstream::ColorChoice::Never.write_global();
        }
        Self { json: global.json, quiet: global.quiet, lost: Arc::default() }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether progress bars help: somebody looks at a terminal.
    pub(crate) fn shows_progress(&self) -> bool {
        !self.json && !self.quiet && std::io::stderr().is_terminal()
    }

    /// Whether a person sits before standard error and may be shown what no file keeps.
    pub(crate) fn is_terminal(&self) -> bool {
        !self.json && !self.quiet && std::io::stderr().is_terminal()
    }

    /// Whether a person can be asked something.
    pub(crate) fn can_ask(&self) -> bool {
        self.is_terminal() && std::io::stdin().is_terminal()
    }

    /// Asks a person; anything but a yes is a no.
    pub(crate) fn ask(&self, question: &str) -> Result<bool, Failure> {
        let _ = write!(anstream::stderr().lock(), "{question} [y/N] ");
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        Ok(["y", "yes"].contains(&line.trim().to_lowercase().as_str()))
    }

    /// The answer of a command.
    pub(crate) fn answer(&self, answer: &Value) {
        if self.json {
            return self.line(&answer.to_string());
        }
        // A content goes to a file or a pipe byte for byte.
        let on_terminal = std::io::stdout().is_terminal();
        if let Some(bytes) = render::content(answer) {
            let text = String::from_utf8_lossy(&bytes);
            let text = if on_terminal { shown(&text) } else { "".into() };
            let bytes = if on_terminal { text.as_bytes() } else { &bytes };
            self.bytes(bytes);
        } else {
            let answer = if on_terminal { shown_all(answer) } else { answer.clone() };
            self.line(render::text(&answer).trim_end_matches('\n'));
        }
    }

    /// Bytes of data, as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) {
        let mut stdout = std::io::stdout().lock();
        self.written(stdout.write_all(bytes).and_then(|()| stdout.flush()));
    }

    /// One line of data.
    pub(crate) fn line(&self, text: &str) {
        if !text.is_empty() {
            self.written(writeln!(anstream::stdout().lock(), "{text}"));
        }
    }

    /// Remembers what standard output did not take. A reader that went away is no error of ours.
    fn written(&self, written: std::io::Result<()>) {
        if let Err(error) = written
            && error.kind() != ErrorKind::BrokenPipe
        {
            self.lost.get_or_init(|| error.to_string());
        }
    }

    /// The exit code of a command that ends with this one: it did not do what it was asked where its answer is lost.
    pub(crate) fn end(&self, code: u8) -> u8 {
        let Some(why) = self.lost.get() else { return code };
        let text = format!("what was to be written to standard output is lost: {why}");
        self.tell(&Failure::failed("output", text));
        if code == 0 { Exit::Failed.code() } else { code }
    }

    /// Something a person may like to know.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet && !self.json {
            let _ = writeln!(anstream::stderr().lock(), "{}", shown(text));
        }
    }

    /// An answer that was looked at: what is wrong with it is a member `error` of the one document. Gives the exit
    /// code.
    pub(crate) fn answer_checked(&self, mut answer: Value, checked: Result<(), Failure>) -> u8 {
        let Err(failure) = checked else {
            self.answer(&answer);
            return 0;
        };
        if self.json {
            answer["error"] = error(&failure);
        }
        self.answer(&answer);
        if !self.json {
            self.failure(&failure);
        }
        failure.exit.code()
    }

    /// A failed command.
    pub(crate) fn failure(&self, failure: &Failure) {
        if self.json {
            self.line(&json!({"schema": "sealtide/error/1", "error": error(failure)}).to_string());
            return;
        }
        self.tell(failure);
    }

    fn tell(&self, failure: &Failure) {
        let red = Style::new().fg_color(Some(AnsiColor::Red.into())).bold();
        let mut stderr = anstream::stderr().lock();
        let _ = writeln!(stderr, "{red}error:{red:#} {}", shown(&failure.message));
        if let Some(hint) = &failure.hint {
            let cyan = Style::new().fg_color(Some(AnsiColor::Cyan.into()));
            let _ = writeln!(stderr, "{cyan}hint:{cyan:#} {}", shown(hint));
        }
    }
}

fn error(failure: &Failure) -> Value {
    json!({"code": failure.code, "message": failure.message, "hint": failure.hint})
}

/// Starts the log on standard error.
pub(crate) fn start_log(global: &Global, level: &str) {
    use tracing_subscriber::EnvFilter;

    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (_, 0) => level,
        (_, 1) => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("SEALTIDE_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,sealtide={level},{}", ours(level))));
    let colour = !global.no_color && std::env::var_os("NO_COLOR").is_none() && std::io::stderr().is_terminal();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).try_init();
}

fn ours(level: &str) -> String {
    let crates = ["node", "link", "store", "folder", "gateway"];
    crates.map(|name| format!("sealtide_{name}={level}")).join(",")
}
