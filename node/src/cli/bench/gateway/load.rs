//! The load: WebSocket clients that do as little as a client can, on one thread, so that what is measured is the server.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use super::failed;
use crate::failure::Failure;

/// What is sent to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aim {
    pub(super) at: SocketAddr,
    /// Whether an upgrade needs a token.
    pub(super) has_tokens: bool,
}

/// One WebSocket.
pub(super) struct Session {
    stream: BufReader<TcpStream>,
}

/// Bytes that a session reads ahead.
const READ_BYTES: usize = 1_024;

/// One thread with a runtime.
pub(super) struct Load {
    runtime: Runtime,
}

type Result<T> = std::result::Result<T, Failure>;

impl Load {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { runtime: Builder::new_current_thread().enable_all().build()? })
    }

    /// Opens and closes so many, `at_once` at a time.
    pub(super) fn upgrades(&self, aim: &Aim, count: usize, at_once: usize) -> Result<()> {
        let aim = *aim;
        self.each(0..at_once, move |_| async move {
            let mut tokens = Tokens::new(&aim).await?;
            for _ in 0..count / at_once {
                let session = tokens.enter(&aim).await?;
                session.stream.get_ref().set_zero_linger()?;
            }
            Ok(())
        })
        .map(drop)
    }

    pub(super) fn sessions(&self, aim: &Aim, count: usize) -> Result<Vec<Session>> {
        let aim = *aim;
        let at_once = count.min(32);
        let made = self.each(0..at_once, move |worker| async move {
            let mut tokens = Tokens::new(&aim).await?;
            let mut made = Vec::new();
            for _ in (worker..count).step_by(at_once) {
                made.push(tokens.enter(&aim).await?);
            }
            Ok(made)
        })?;
        Ok(made.into_iter().flatten().collect())
    }

    /// Every session sends a message and takes an answer of so many bytes, `trips` times.
    pub(super) fn trips(&self, sessions: &mut Vec<Session>, message: &[u8], answer: usize, trips: usize) -> Result<()> {
        let sent = frame(message);
        *sessions = self.each(std::mem::take(sessions), move |mut session| {
            let sent = sent.clone();
            async move {
                let mut back = vec![0; answer];
                for _ in 0..trips {
                    session.stream.write_all(&sent).await?;
                    session.stream.read_exact(&mut back).await?;
                }
                Ok(session)
            }
        })?;
        Ok(())
    }

    /// Every session bumps, one after the other. Between its answers a session hears what the others did.
    pub(super) fn bumps(&self, sessions: &mut Vec<Session>, bumps: usize) -> Result<()> {
        let sent = frame(br#"{"type":"bump","entityId":"api:sample","cascade":false}"#);
        *sessions = self.each(std::mem::take(sessions), move |mut session| {
            let sent = sent.clone();
            async move {
                for _ in 0..bumps {
                    session.stream.write_all(&sent).await?;
                    while !session.message().await?.starts_with(br#"{"type":"bump_response""#) {}
                }
                Ok(session)
            }
        })?;
        Ok(())
    }

    /// As [`Load::bumps`]; how long each took, in milliseconds.
    pub(super) fn bump_times(&self, sessions: &mut Vec<Session>, bumps: usize) -> Result<Vec<f64>> {
        let sent = frame(br#"{"type":"bump","entityId":"api:sample","cascade":false}"#);
        let done = self.each(std::mem::take(sessions), move |mut session| {
            let sent = sent.clone();
            async move {
                let mut times = Vec::with_capacity(bumps);
                for _ in 0..bumps {
                    let began = std::time::Instant::now();
                    session.stream.write_all(&sent).await?;
                    while !session.message().await?.starts_with(br#"{"type":"bump_response""#) {}
                    times.push(began.elapsed().as_secs_f64() * 1000.0);
                }
                Ok((session, times))
            }
        })?;
        let (back, times): (Vec<Session>, Vec<Vec<f64>>) = done.into_iter().unzip();
        *sessions = back;
        Ok(times.concat())
    }

    /// One session makes the server tell all, and waits until all have heard it.
    pub(super) fn broadcasts(
        &self,
        aim: &Aim,
        teller: &mut Session,
        listeners: &mut Vec<Session>,
        count: usize,
    ) -> Result<()> {
        let has_tokens = aim.has_tokens;
        // As long as what the door says of a bump of one entity.
        let told = if has_tokens {
            frame(br#"{"type":"bump","entityId":"api:sample","cascade":false}"#)
        } else {
            frame(b"all:180")
        };
        let held = std::mem::take(listeners);
        *listeners = self.runtime.block_on(async {
            let heard: Vec<_> = held
                .into_iter()
                .map(|mut session| {
                    tokio::spawn(async move {
                        for _ in 0..count {
                            session.message().await?;
                        }
                        Ok::<Session, Failure>(session)
                    })
                })
                .collect();
            for _ in 0..count {
                teller.stream.write_all(&told).await?;
                // Its own answer, or its own share of what all are told.
                teller.message().await?;
            }
            let mut held = Vec::with_capacity(heard.len());
            for session in heard {
                held.push(session.await.map_err(failed)??);
            }
            Ok::<_, Failure>(held)
        })?;
        Ok(())
    }

    /// Runs one task for each item.
    fn each<I, T, F>(&self, items: impl IntoIterator<Item = I>, work: impl Fn(I) -> F) -> Result<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.runtime.block_on(async {
            let tasks: Vec<_> = items.into_iter().map(|item| tokio::spawn(work(item))).collect();
            let mut done = Vec::with_capacity(tasks.len());
            for task in tasks {
                done.push(task.await.map_err(failed)??);
            }
            Ok(done)
        })
    }
}

impl Session {
    /// The payload of the next frame.
    async fn message(&mut self) -> Result<Vec<u8>> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).await?;
        let length = match head[1] {
            126 => usize::from(self.stream.read_u16().await?),
            127 => usize::try_from(self.stream.read_u64().await?).map_err(failed)?,
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await?;
        Ok(payload)
    }
}

/// Where a worker gets its tokens: a connection that stays.
struct Tokens(Option<TcpStream>);

impl Tokens {
    async fn new(aim: &Aim) -> Result<Self> {
        let stream = if aim.has_tokens { Some(connect(aim.at).await?) } else { None };
        Ok(Self(stream))
    }

    async fn enter(&mut self, aim: &Aim) -> Result<Session> {
        let token = match &mut self.0 {
            Some(stream) => format!("X-TES-WS-CSRF-Token: {}\r\n", fetch(stream, aim.at).await?),
            None => String::new(),
        };
        let mut stream = connect(aim.at).await?;
        let head = format!(
            "GET /version/ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{token}\r\n",
            aim.at
        );
        stream.write_all(head.as_bytes()).await?;
        let (answer, _) = head_of(&mut stream).await?;
        if !answer.starts_with("HTTP/1.1 101") {
            return Err(failed(answer));
        }
        Ok(Session { stream: BufReader::with_capacity(READ_BYTES, stream) })
    }
}

async fn connect(at: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn fetch(stream: &mut TcpStream, at: SocketAddr) -> Result<String> {
    let request = format!("GET /api/auth/csrf-token?purpose=ws HTTP/1.1\r\nHost: {at}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (head, mut body) = head_of(stream).await?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.ok_or_else(|| failed(&head))?;
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Err(failed("the server is gone"));
        }
    }
    let text = String::from_utf8(body).map_err(failed)?;
    let token = text.split_once(r#""token":""#).and_then(|(_, rest)| rest.split_once('"'));
    token.map(|(token, _)| token.to_owned()).ok_or_else(|| failed(text))
}

/// The head of an answer, and what came behind it.
async fn head_of(stream: &mut TcpStream) -> Result<(String, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(1_024);
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8(bytes).map_err(failed)?, rest));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(failed("the server is gone"));
        }
    }
}

/// A masked text frame; the mask is zero, so that masking costs this side nothing.
fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126).expect("short messages only");
    [&[0x81, 0x80 | length, 0, 0, 0, 0], payload].concat()
}
