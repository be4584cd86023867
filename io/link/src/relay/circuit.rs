//! A circuit as a pipe.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sealtide_wire::relay::{CircuitEnd, CircuitNumber, ReadOutcome};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client::Use;
use super::live::Live;

/// One end of a circuit; it ends when dropped.
pub(crate) struct Circuit {
    live: Arc<Live>,
    number: CircuitNumber,
    /// Keeps the login.
    _used: Option<Use>,
}

impl Circuit {
    pub(super) fn new(live: Arc<Live>, number: CircuitNumber, used: Option<Use>) -> Self {
        Self { live, number, _used: used }
    }
}

impl AsyncRead for Circuit {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let (now_ms, mut moved) = (self.live.now_ms(), false);
        let mut core = self.live.core();
        while buf.remaining() > 0 {
            match core.client.read(now_ms, self.number, buf.remaining()) {
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
                    core.wakers.entry(self.number).or_default().read.add(cx.waker());
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
        self.poll_write_vectored(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut core = self.live.core();
        match core.client.write(self.number, pieces) {
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Some(0) if pieces.iter().any(|piece| !piece.is_empty()) => {
                core.wakers.entry(self.number).or_default().write.add(cx.waker());
                Poll::Pending
            }
            Some(taken) => {
                drop(core);
                self.live.pump.wake();
                Poll::Ready(Ok(taken))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Wake, Waker};

    use sealtide_identity::NodeId;
    use sealtide_wire::relay::{RelayClient, RelayFrame, RelaySettings};

    use super::*;

    #[derive(Default)]
    struct Task(AtomicBool);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn tasks<const N: usize>() -> [Arc<Task>; N] {
        std::array::from_fn(|_| Arc::default())
    }

    fn woken(tasks: &[Arc<Task>]) -> usize {
        tasks.iter().filter(|task| task.0.swap(false, Ordering::Relaxed)).count()
    }

    /// A circuit that stands and has nothing to read.
    fn circuit() -> Circuit {
        let mut client = RelayClient::new(RelaySettings::default().granted());
        let number = client.open(NodeId::from_bytes([2; 32])).unwrap();
        client.message(&RelayFrame::Accept { circuit: number }.encode()).unwrap();
        Circuit::new(Arc::new(Live::new(client)), number, None)
    }

    fn poll_read(circuit: &mut Circuit, task: &Arc<Task>) -> Poll<Vec<u8>> {
        let waker = Waker::from(task.clone());
        let mut space = [0; 16];
        let mut buf = ReadBuf::new(&mut space);
        let poll = Pin::new(circuit).poll_read(&mut Context::from_waker(&waker), &mut buf);
        poll.map(|result| result.map(|()| buf.filled().to_vec()).unwrap())
    }

    /// TLS reads a circuit where it wants to write, too: a task that polls must not take the place of another one.
    #[test]
    fn every_task_that_waits_for_a_circuit_is_woken() {
        let mut circuit = circuit();
        let tasks = tasks::<3>();
        for task in &tasks {
            assert!(poll_read(&mut circuit, task).is_pending());
            assert!(poll_read(&mut circuit, task).is_pending(), "twice is once");
        }
        let data = RelayFrame::Data { circuit: circuit.number, payload: b"tide".as_slice().into() };
        circuit.live.core().client.message(&data.encode()).unwrap();
        circuit.live.core().wake(circuit.number);
        assert_eq!(woken(&tasks), 3);
        assert_eq!(poll_read(&mut circuit, &tasks[0]), Poll::Ready(b"tide".to_vec()));
    }

    /// Tasks that polled once and went away fill no memory: the oldest is woken, and may poll again.
    #[test]
    fn waiting_tasks_are_bounded_and_none_is_forgotten() {
        let mut circuit = circuit();
        let tasks = tasks::<100>();
        for task in &tasks {
            assert!(poll_read(&mut circuit, task).is_pending());
        }
        assert_eq!(woken(&tasks[..96]), 96, "made way for later ones");
        circuit.live.core().wake(circuit.number);
        assert_eq!(woken(&tasks), 4);
    }
}
