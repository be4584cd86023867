//! A circuit as a pipe.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sealtide_wire::relay::{CircuitEnd, CircuitNumber, ReadOutcome};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client::Live;

/// One end of a circuit; it ends when dropped.
pub(crate) struct Circuit {
    live: Arc<Live>,
    number: CircuitNumber,
}

impl Circuit {
    pub(super) fn new(live: Arc<Live>, number: CircuitNumber) -> Self {
        Self { live, number }
    }
}

impl AsyncRead for Circuit {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut core = self.live.core();
        let mut moved = false;
        while buf.remaining() > 0 {
            match core.client.read(self.number, buf.remaining()) {
                ReadOutcome::Bytes(bytes) => {
                    buf.put_slice(&bytes);
                    moved = true;
                }
                ReadOutcome::Over(why) if !moved && why != CircuitEnd::Done => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::ConnectionReset,
                        format!("circuit: {why:?}"),
                    )));
                }
                ReadOutcome::Over(_) => break,
                ReadOutcome::Wait if moved => break,
                ReadOutcome::Wait => {
                    core.wakers.entry(self.number).or_default().read = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
        let news = core.client.has_messages();
        drop(core);
        if news {
            self.live.pump.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Circuit {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut core = self.live.core();
        match core.client.write(self.number, data) {
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Some(0) if !data.is_empty() => {
                core.wakers.entry(self.number).or_default().write = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(taken) => {
                drop(core);
                self.live.pump.wake();
                Poll::Ready(Ok(taken))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A circuit has no half that ends alone; the end of TLS says that nothing follows.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Circuit {
    fn drop(&mut self) {
        let mut core = self.live.core();
        core.client.close(self.number);
        core.wakers.remove(&self.number);
        drop(core);
        self.live.pump.wake();
    }
}
