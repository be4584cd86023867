//! A follower that is a page of a browser: `web/verify/tests/fleet` serves it, opens it in Chromium, and speaks JSON lines.
//! `.ci/web follower` builds it. Without it, Node or Chromium the test goes on without a page, and says so.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// It ends, and its browser with it, when this is dropped.
pub(crate) struct Page {
    child: Child,
    /// Taken when it is to end.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// The origin of the site that the page is of.
    pub(crate) origin: String,
}

impl Page {
    /// A page whose site hands out this trust file; none where something is missing.
    pub(crate) fn open(trust: &str) -> Option<Self> {
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("../web/verify/build/tests/fleet/driver.js");
        let chromium = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".to_owned());
        let has_node =
            Command::new("node").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
        for (what, is_there) in [
            ("Node", has_node),
            ("Chromium", Path::new(&chromium).exists()),
            ("the page of a follower (.ci/web follower builds it)", driver.exists()),
        ] {
            if !is_there {
                println!("SKIPPED: the page of a browser, for {what} is missing");
                return None;
            }
        }
        let mut command = Command::new("node");
        command.arg(driver).arg(trust).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut page = Self { child, input, output, origin: String::new() };
        page.origin = page.line()["origin"].as_str().unwrap().to_owned();
        Some(page)
    }

    /// Does one thing, and gives what the driver says of it.
    #[track_caller]
    pub(crate) fn ask(&mut self, wish: &Value) -> Value {
        writeln!(self.input.as_mut().unwrap(), "{wish}").unwrap();
        let told = self.line();
        assert!(told.get("failed").is_none(), "{wish}: {told}");
        told
    }

    /// Looks at a gateway, and gives what happened in the page since it was loaded.
    #[track_caller]
    pub(crate) fn look(&mut self, gateway: &str) -> Value {
        self.ask(&json!({ "do": "look", "gateway": gateway }))
    }

    #[track_caller]
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("the page said {line:?}"))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // It ends with its input; its browser with the pipe to it.
        drop(self.input.take());
        if std::thread::panicking() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
