//! One WebSocket connection after the 101: bytes in, messages to whoever talks on it, bytes out. Spec: gateway §2.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::frames::{Class, CloseCode, Event, Receiver, Sender};
use crate::rates::Bucket;
use crate::spoken::Spoken;

/// How long the other end has to answer a close, and to take what was sent before one.
const LINGER: Duration = Duration::from_secs(5);
/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
/// Bytes to be written at which nothing more is answered until they are.
const OUTPUT_BYTES: usize = 64 * 1024;
/// Bytes that a closing peer may still send.
const LINGER_BYTES: usize = 1 << 20;

/// What is said to a client.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A text message.
    Text(String, Class),
    /// A binary message.
    Binary(Vec<u8>, Class),
    /// A message that others hear too.
    Spoken(Arc<Spoken>),
    /// The last frame.
    Close(CloseCode),
}

/// Whoever answers messages on a connection.
pub(crate) trait Talk: Send {
    /// Answers a text message.
    fn text(&mut self, text: String, mono_ms: u64) -> Vec<Reply>;
    /// Answers a binary message.
    fn binary(&mut self, bytes: Vec<u8>, mono_ms: u64) -> Vec<Reply>;
}

/// What is said on a connection although nobody on it asked.
pub(crate) trait Hear: Send {
    /// The next thing; `None` when there is nothing to come. Nothing is lost when the future is dropped before its end.
    fn next(&mut self) -> impl Future<Output = Option<Reply>> + Send;
}

/// A connection on which nobody speaks unasked.
pub(crate) struct Silence;

impl Hear for Silence {
    async fn next(&mut self) -> Option<Reply> {
        None
    }
}

/// When pings go out, and when nobody is there any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) ping: Duration,
    pub(crate) idle: Duration,
    /// 0: any number.
    pub(crate) messages_per_second: u32,
    /// The zero of the clock that talkers see.
    pub(crate) epoch: Instant,
}

/// What there is to say of a connection when it is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// The code of the close frame that was sent or answered; none without one.
    pub(crate) code: Option<u16>,
    /// Whether it ended because the other end broke the protocol.
    pub(crate) is_fault: bool,
    /// Whether a message did not inflate within the bounds.
    pub(crate) is_bomb: bool,
    /// Bytes that came.
    pub(crate) bytes_in: u64,
    /// Bytes that were written.
    pub(crate) bytes_out: u64,
}

/// Everything that belongs to one connection.
pub(crate) struct Connection<S, T, H> {
    pub(crate) stream: S,
    pub(crate) receiver: Receiver,
    pub(crate) sender: Sender,
    pub(crate) talk: T,
    pub(crate) times: Times,
    /// What others want said on it.
    pub(crate) hear: H,
    /// Turns true when the gateway stops.
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) tally: Tally,
}

/// What a connection waited for.
enum Woke {
    /// So many bytes; 0: nobody is there any more.
    Read(usize),
    Timer,
    Heard(Option<Reply>),
}

/// Returns when the gateway stops.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone has stopped too.
    let _ = stop.wait_for(|stopped| *stopped).await;
}

/// Reads what there is. While nothing is under way the bytes come over the stack, so that a connection that waits holds
/// no buffer; the rest of a long frame is read to where it belongs.
async fn read_some<S: AsyncRead + Unpin>(stream: &mut S, input: &mut BytesMut) -> std::io::Result<usize> {
    if !input.is_empty() {
        input.reserve(READ_BYTES);
        return stream.read_buf(input).await;
    }
    poll_fn(|cx| {
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut space);
        std::task::ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
        input.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    })
    .await
}

/// What is left to do after some events.
#[derive(PartialEq)]
enum Course {
    On,
    /// Write first: there is more to answer.
    More,
    /// The close frame is in the buffer.
    Closing,
}

impl<S, T, H> Connection<S, T, H>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: Talk,
    H: Hear,
{
    /// Serves it until it ends.
    ///
    /// One timer serves pings and silence. It is not moved when a frame comes: when it fires, it is looked at what was
    /// due. Between messages no buffer is held.
    // Spec: GW-36
    pub(crate) async fn run(mut self) -> Tally {
        self.serve().await;
        self.tally
    }

    async fn serve(&mut self) {
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        let mut bucket = Bucket::full(self.times.messages_per_second, self.mono_ms());
        let mut last_frame = Instant::now();
        let mut ping_at = last_frame + self.times.ping;
        let mut timer = Box::pin(sleep_until(ping_at.min(last_frame + self.times.idle)));
        let mut others_talk = true;
        loop {
            let course = self.take_events(&mut input, &mut output, &mut bucket, &mut last_frame);
            if !self.flush(&mut output).await {
                return;
            }
            match course {
                Course::On => {}
                Course::More => continue,
                Course::Closing => return self.linger().await,
            }
            if input.is_empty() {
                input = BytesMut::new();
            }
            let woke = tokio::select! {
                read = read_some(&mut self.stream, &mut input) => Woke::Read(read.unwrap_or(0)),
                () = timer.as_mut() => Woke::Timer,
                reply = self.hear.next(), if others_talk => Woke::Heard(reply),
                () = stopped(&mut self.stop) => Woke::Heard(Some(Reply::Close(CloseCode::AWAY))),
            };
            match woke {
                Woke::Read(0) => return,
                Woke::Read(bytes) => self.tally.bytes_in += bytes as u64,
                Woke::Timer => {
                    let now = Instant::now();
                    if now >= last_frame + self.times.idle {
                        return;
                    }
                    if now >= ping_at {
                        self.sender.ping(&mut output);
                        ping_at = now + self.times.ping;
                    }
                    timer.as_mut().reset(ping_at.min(last_frame + self.times.idle));
                }
                Woke::Heard(None) => others_talk = false,
                Woke::Heard(Some(Reply::Spoken(spoken))) => {
                    if !self.write(&self.sender.spoken(&spoken)).await {
                        return;
                    }
                }
                Woke::Heard(Some(reply)) => {
                    if self.say(reply, &mut output) == Course::Closing {
                        self.flush(&mut output).await;
                        return self.linger().await;
                    }
                }
            }
        }
    }

    /// Answers what has come, and stops for a moment when there is much to write: a short question may have a long
    /// answer, and a piece of input holds many questions.
    // Spec: GW-100
    fn take_events(
        &mut self,
        input: &mut BytesMut,
        output: &mut BytesMut,
        bucket: &mut Bucket,
        last_frame: &mut Instant,
    ) -> Course {
        loop {
            if output.len() >= OUTPUT_BYTES {
                return Course::More;
            }
            let event = match self.receiver.next(input) {
                Ok(Some(event)) => event,
                Ok(None) => return Course::On,
                Err(code) => {
                    (self.tally.code, self.tally.is_fault) = (Some(code.0), true);
                    self.tally.is_bomb = self.receiver.inflate_refused();
                    self.sender.close(Some(code), output);
                    return Course::Closing;
                }
            };
            *last_frame = Instant::now();
            let mono_ms = self.mono_ms();
            let replies = match event {
                Event::Pong => continue,
                Event::Close(code) => {
                    self.tally.code = code.map(|code| code.0);
                    self.sender.close(code, output);
                    return Course::Closing;
                }
                // Pings count: they cost what a short message costs.
                _ if !bucket.take(self.times.messages_per_second, mono_ms) => vec![Reply::Close(CloseCode::POLICY)],
                Event::Ping(payload) => {
                    self.sender.pong(payload, output);
                    continue;
                }
                Event::Text(text) => self.talk.text(text, mono_ms),
                Event::Binary(bytes) => self.talk.binary(bytes, mono_ms),
            };
            for reply in replies {
                if self.say(reply, output) == Course::Closing {
                    return Course::Closing;
                }
            }
        }
    }

    fn say(&mut self, reply: Reply, output: &mut BytesMut) -> Course {
        match reply {
            Reply::Text(text, class) => self.sender.text(&text, class, output),
            Reply::Spoken(spoken) => output.extend_from_slice(&self.sender.spoken(&spoken)),
            Reply::Binary(bytes, class) => self.sender.binary(&bytes, class, output),
            Reply::Close(code) => {
                self.tally.code = Some(code.0);
                self.sender.close(Some(code), output);
                return Course::Closing;
            }
        }
        Course::On
    }

    /// Writes what there is; a reader that takes nothing for the idle time is gone ([`crate::patience`]).
    async fn flush(&mut self, output: &mut BytesMut) -> bool {
        if output.is_empty() {
            return true;
        }
        let bytes = std::mem::take(output).freeze();
        self.write(&bytes).await
    }

    async fn write(&mut self, bytes: &Bytes) -> bool {
        self.tally.bytes_out += bytes.len() as u64;
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Lets the other end read what was sent: closing with bytes unread would reset the connection under it.
    async fn linger(&mut self) {
        let _ = self.stream.shutdown().await;
        let mut left = LINGER_BYTES;
        let mut waste = [0; 4_096];
        let drain = async {
            while let Ok(read) = self.stream.read(&mut waste).await {
                left = left.saturating_sub(read);
                if read == 0 || left == 0 {
                    return;
                }
            }
        };
        let _ = timeout(LINGER, drain).await;
    }

    fn mono_ms(&self) -> u64 {
        u64::try_from(self.times.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
