//! TLS after its handshake, in large steps: few system calls, no buffer while idle. Spec: link C.2 "TLS in code".
//!
//! Reads up to 256 KiB from the socket into a buffer of the thread and feeds it to rustls by slices; writes by one
//! vectored call of up to 64 records. Takes new plaintext only when the records of the last have left, so at most
//! [`WRITE_BYTES`] wait.

use std::cell::RefCell;
use std::io::{self, BufRead, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read from the socket in one call.
const READ_BYTES: usize = 256 * 1024;
/// Plaintext bytes that are turned into records in one go, and that wait at most.
const WRITE_BYTES: usize = 256 * 1024;
/// The keys of our direction are renewed after so many bytes. Spec: link C.7.
const KEY_BYTES: u64 = 64 << 30;

thread_local! {
    /// Where the sockets of this thread are read to. Nothing stays in it between two calls.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A TLS connection over `S`, usable wherever a byte stream is: what links run on. Spec: link C.2.
pub struct TlsStream<S> {
    socket: S,
    tls: Connection,
    /// Bytes of the socket that rustls has not been given, because the reader had no room; mostly empty.
    ahead: Vec<u8>,
    ended: bool,
    closing: bool,
    key_bytes: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Takes over a connection whose handshake is done.
    pub fn new(socket: S, mut tls: Connection) -> Self {
        tls.set_buffer_limit(None);
        Self { socket, tls, ahead: Vec::new(), ended: false, closing: false, key_bytes: 0 }
    }

    /// What TLS runs over.
    pub(crate) fn socket(&self) -> &S {
        &self.socket
    }

    /// The TLS state: exporter, group, certificates.
    pub(crate) fn tls(&self) -> &Connection {
        &self.tls
    }

    /// Takes what still comes and throws it away unread, until the other end is done too. For after the end of TLS in our
    /// direction: what comes then means nothing, and rustls must not see it, since it takes a broken record behind its own
    /// end for a fault of its caller and panics.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ahead = Vec::new();
        while !self.ended {
            let read = SCRATCH.with_borrow_mut(|scratch| {
                scratch.resize(READ_BYTES, 0);
                let mut raw = ReadBuf::new(scratch);
                let polled = Pin::new(&mut self.socket).poll_read(cx, &mut raw);
                polled.map_ok(|()| raw.filled().len())
            });
            self.ended = ready!(read)? == 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Moves what rustls has decrypted into `buf`. `Ok(true)`: something moved, or the peer has ended in order.
    fn take_plaintext(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<bool> {
        let mut moved = false;
        while buf.remaining() > 0 {
            let mut reader = self.tls.reader();
            let chunk = match reader.fill_buf() {
                Ok([]) => return Ok(true),
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // What came before the cut counts first.
                Err(_) if moved => break,
                Err(error) => return Err(error),
            };
            let length = chunk.len().min(buf.remaining());
            buf.put_slice(&chunk[..length]);
            reader.consume(length);
            moved = true;
        }
        Ok(moved)
    }

    /// Gives rustls bytes of the socket until they are used up or the reader is full; returns how many it took.
    fn feed(&mut self, bytes: &[u8], buf: &mut ReadBuf<'_>) -> io::Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() && buf.remaining() > 0 {
            // rustls takes some KiB at a time, and nothing while a whole record of plaintext waits.
            if self.tls.read_tls(&mut rest)? == 0 {
                break;
            }
            self.tls.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.take_plaintext(buf)?;
        }
        Ok(bytes.len() - rest.len())
    }

    /// One read of the socket. `Ready(Ok(()))`: call again to see what it brought.
    fn fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(READ_BYTES, 0);
            // No more than fits, so that hardly anything has to be kept for later.
            let length = buf.remaining().clamp(4096, READ_BYTES);
            let mut raw = ReadBuf::new(&mut scratch[..length]);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut raw))?;
            if raw.filled().is_empty() {
                self.ended = true;
                self.tls.read_tls(&mut io::empty())?;
                return Poll::Ready(Ok(()));
            }
            let taken = self.feed(raw.filled(), buf)?;
            self.ahead.extend_from_slice(&raw.filled()[taken..]);
            Poll::Ready(Ok(()))
        })
    }

    /// After `written` bytes became records: those leave as far as the socket takes them.
    fn sealed(&mut self, written: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.key_bytes += written as u64;
        if self.key_bytes >= KEY_BYTES {
            self.key_bytes = 0;
            self.tls.refresh_traffic_keys().map_err(io::Error::other)?;
        }
        match self.write_out(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(written)),
        }
    }

    /// Writes waiting records; `Ready` when none is left.
    fn write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            let mut socket = Vectored { socket: &mut self.socket, cx };
            match self.tls.write_tls(&mut socket) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        // A reader may hand in a buffer that holds bytes of earlier calls.
        let before = buf.filled().len();
        loop {
            if this.take_plaintext(buf)? {
                return Poll::Ready(Ok(()));
            }
            if !this.ahead.is_empty() {
                let ahead = std::mem::take(&mut this.ahead);
                let taken = this.feed(&ahead, buf)?;
                this.ahead = ahead[taken..].to_vec();
            } else if this.ended {
                // Rustls says by itself whether the end was in order; this is the case that it is asked once more.
                return Poll::Ready(Ok(()));
            } else {
                let filled = this.fill(cx, buf);
                // Answers of TLS itself, such as alerts; what does not leave now leaves with the next call.
                if let Poll::Ready(Err(error)) = this.write_out(cx) {
                    tracing::trace!("link: an answer of TLS did not leave: {error}");
                }
                match filled {
                    Poll::Ready(Ok(())) if buf.filled().len() > before => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(())) => {}
                    other => return other,
                }
            }
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // One batch at a time waits: whoever writes waits with it.
        ready!(this.write_out(cx))?;
        let written = this.tls.writer().write(&data[..data.len().min(WRITE_BYTES)])?;
        this.sealed(written, cx)
    }

    /// Seals records out of the pieces where they lie: nothing is put together before.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut left = WRITE_BYTES;
        let fit = pieces.iter().take_while(|piece| {
            left.checked_sub(piece.len()).is_some_and(|rest| {
                left = rest;
                true
            })
        });
        let count = fit.count();
        if count < 2 {
            let first = pieces.iter().find(|piece| !piece.is_empty()).map_or(&[][..], |piece| piece);
            return Pin::new(this).poll_write(cx, first);
        }
        ready!(this.write_out(cx))?;
        let written = this.tls.writer().write_vectored(&pieces[..count])?;
        this.sealed(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.write_out(cx))?;
        Pin::new(&mut this.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.closing, true) {
            this.tls.send_close_notify();
        }
        ready!(this.write_out(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

/// Lets rustls write to an asynchronous socket, many records in one call.
struct Vectored<'a, 'b, S> {
    socket: &'a mut S,
    cx: &'a mut Context<'b>,
}

impl<S: AsyncWrite + Unpin> Write for Vectored<'_, '_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, records: &[IoSlice<'_>]) -> io::Result<usize> {
        match Pin::new(&mut *self.socket).poll_write_vectored(self.cx, records) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;
    use rustls_pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::certificate::NodeCertificate;
    use crate::tls;

    /// Counts the slices of vectored writes and cuts them at random places.
    struct Narrow {
        inner: DuplexStream,
        most_slices: Arc<AtomicUsize>,
    }

    impl AsyncRead for Narrow {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.inner).poll_write(cx, data)
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.most_slices.fetch_max(slices.len(), Ordering::Relaxed);
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            Pin::new(&mut self.inner).poll_write(cx, first)
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_shutdown(cx)
        }
    }

    type Theirs = tokio_rustls::TlsStream<DuplexStream>;

    /// Our stream as the client or the server, tokio-rustls at the other end.
    async fn ends(ours_is_client: bool, pipe_bytes: usize) -> (TlsStream<Narrow>, Theirs, Arc<AtomicUsize>) {
        let certificate =
            NodeCertificate::make(1, sealtide_crypto::Now { mono_ms: 0, wall_ms: 1_795_000_000_000 }).unwrap();
        let connector = TlsConnector::from(tls::client_config(&certificate).unwrap());
        let acceptor = TlsAcceptor::from(tls::server_config(&certificate).unwrap());
        let (near, far) = duplex(pipe_bytes);
        let most_slices = Arc::new(AtomicUsize::new(0));
        let near = Narrow { inner: near, most_slices: most_slices.clone() };
        let name = ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into());
        let (ours, theirs): (tokio_rustls::TlsStream<Narrow>, Theirs) = if ours_is_client {
            let (client, server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
            (client.unwrap().into(), server.unwrap().into())
        } else {
            let (server, client) = tokio::join!(acceptor.accept(near), connector.connect(name, far));
            (server.unwrap().into(), client.unwrap().into())
        };
        let (socket, connection) = match ours {
            tokio_rustls::TlsStream::Client(stream) => {
                let (socket, tls) = stream.into_inner();
                (socket, Connection::Client(tls))
            }
            tokio_rustls::TlsStream::Server(stream) => {
                let (socket, tls) = stream.into_inner();
                (socket, Connection::Server(tls))
            }
        };
        (TlsStream::new(socket, connection), theirs, most_slices)
    }

    fn pattern(seed: u8, sizes: &[usize]) -> Vec<u8> {
        (0..sizes.iter().sum::<usize>()).map(|i| (i * 31 % 251) as u8 ^ seed).collect()
    }

    async fn write_in_pieces<W: AsyncWrite + Unpin>(mut stream: W, bytes: Vec<u8>, sizes: Vec<usize>) {
        let mut rest = &bytes[..];
        for (at, size) in sizes.into_iter().enumerate() {
            let (piece, others) = rest.split_at(size);
            rest = others;
            if at % 2 == 0 {
                stream.write_all(piece).await.unwrap();
                continue;
            }
            // The same in pieces.
            let mut sent = 0;
            while sent < size {
                let slices: Vec<_> = piece[sent..].chunks(size / 5 + 1).map(IoSlice::new).collect();
                sent += stream.write_vectored(&slices).await.unwrap();
            }
        }
        stream.shutdown().await.unwrap();
    }

    async fn exchange(ours_is_client: bool, pipe: usize, up: Vec<usize>, down: Vec<usize>) -> usize {
        let (ours, theirs, most_slices) = ends(ours_is_client, pipe).await;
        let (sent_up, sent_down) = (pattern(1, &up), pattern(2, &down));
        let (mut our_read, our_write) = tokio::io::split(ours);
        let (mut their_read, their_write) = tokio::io::split(theirs);
        let (mut got_up, mut got_down) = (Vec::new(), Vec::new());
        let (_, _, a, b) = tokio::join!(
            write_in_pieces(our_write, sent_up.clone(), up),
            write_in_pieces(their_write, sent_down.clone(), down),
            their_read.read_to_end(&mut got_up),
            our_read.read_to_end(&mut got_down),
        );
        a.unwrap();
        b.unwrap();
        assert!(got_up == sent_up && got_down == sent_down, "the bytes of both directions");
        most_slices.load(Ordering::Relaxed)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        // Proves: LK-112
        #[test]
        fn tls_stream(
            ours_is_client: bool,
            pipe in 1_000usize..200_000,
            up in proptest::collection::vec(0usize..90_000, 0..8),
            down in proptest::collection::vec(0usize..90_000, 0..8),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let most_slices = runtime.block_on(exchange(ours_is_client, pipe, up, down));
            prop_assert!(most_slices <= 64, "{} records in one write", most_slices);
        }
    }

    // Proves: LK-112
    #[tokio::test]
    async fn tls_stream_bounds_what_waits_and_holds_nothing_while_idle() {
        let (mut ours, mut theirs, most_slices) = ends(true, 4096).await;
        let big = vec![5; 2 << 20];
        // Nobody reads: one batch is taken, then the writer waits.
        let mut taken = 0;
        std::future::poll_fn(|cx| {
            while let Poll::Ready(result) = Pin::new(&mut ours).poll_write(cx, &big) {
                taken += result.unwrap();
            }
            Poll::Ready(())
        })
        .await;
        assert_eq!(taken, WRITE_BYTES);
        let mut got = vec![0; taken];
        let (flushed, read) = tokio::join!(ours.flush(), theirs.read_exact(&mut got));
        flushed.unwrap();
        read.unwrap();
        assert!(most_slices.load(Ordering::Relaxed) > 8, "many records in one call");

        let mut little = vec![0; 50_000];
        let write = async {
            theirs.write_all(&big[..50_000]).await.unwrap();
            theirs.flush().await.unwrap();
        };
        let ((), read) = tokio::join!(write, ours.read_exact(&mut little));
        read.unwrap();
        assert_eq!(ours.ahead.capacity(), 0);
        assert!(!ours.tls.wants_write());
    }

    // Proves: LK-112
    #[tokio::test]
    async fn exporter_and_group_are_those_of_the_other_end() {
        let (ours, theirs, _) = ends(false, 65_536).await;
        let Connection::Server(server) = ours.tls() else { panic!("a server") };
        let ours_exported = server.export_keying_material([0; 32], b"EXPORTER-x", Some(b"y")).unwrap();
        let tokio_rustls::TlsStream::Client(client) = &theirs else { panic!("a client") };
        let theirs_exported = client.get_ref().1.export_keying_material([0; 32], b"EXPORTER-x", Some(b"y")).unwrap();
        assert_eq!(ours_exported, theirs_exported);
        assert_eq!(ours.tls().negotiated_key_exchange_group().unwrap().name(), tls::GROUP);
    }

    /// A peer whose last records are broken does no harm to an end that has said its last word.
    #[tokio::test]
    async fn what_comes_after_our_end_is_thrown_away() {
        for it_ends in [true, false] {
            let (mut ours, theirs, _) = ends(true, 65_536).await;
            ours.shutdown().await.unwrap();
            let (mut raw, _tls) = match theirs {
                tokio_rustls::TlsStream::Server(stream) => stream.into_inner(),
                tokio_rustls::TlsStream::Client(_) => panic!("the other end is the server"),
            };
            // The head of a record of application data, and what is none.
            raw.write_all(&[&[0x17, 3, 3, 0, 40][..], &[7; 40]].concat()).await.unwrap();
            if it_ends {
                raw.shutdown().await.unwrap();
                std::future::poll_fn(|cx| ours.poll_discard(cx)).await.unwrap();
            } else {
                let discarded = std::future::poll_fn(|cx| Poll::Ready(ours.poll_discard(cx))).await;
                assert!(discarded.is_pending());
            }
        }
    }

    #[tokio::test]
    async fn a_cut_without_an_end_is_an_error() {
        let (mut ours, mut theirs, _) = ends(true, 65_536).await;
        theirs.write_all(b"last words").await.unwrap();
        theirs.flush().await.unwrap();
        drop(theirs);
        let mut got = Vec::new();
        let error = ours.read_to_end(&mut got).await.unwrap_err();
        assert_eq!((error.kind(), &got[..]), (io::ErrorKind::UnexpectedEof, &b"last words"[..]));
    }
}
