//! Small proxies that do what a test says: forward, ask for credentials, refuse, or talk nonsense.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::raw::read_head;

/// What a proxy does with whoever comes.
#[derive(Clone, Debug)]
pub enum Manner {
    /// Connects, to the address behind whatever was asked for, and forwards.
    Forwards,
    /// Forwards for who says `user:password`.
    Asks(&'static str, &'static str),
    /// Answers with these bytes, whatever was said, and waits for the end.
    Answers(Vec<u8>),
    /// As `Answers`, and hangs up.
    HangsUp(Vec<u8>),
}

/// A proxy on a port of loopback. What it was asked for is written down.
pub struct TestProxy {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl TestProxy {
    /// An HTTP proxy; `leads_to` is where every name is.
    pub async fn http(manner: Manner, leads_to: SocketAddr) -> Self {
        Self::serve(manner, leads_to, http).await
    }

    /// A SOCKS5 proxy; `leads_to` is where every name is.
    pub async fn socks5(manner: Manner, leads_to: SocketAddr) -> Self {
        Self::serve(manner, leads_to, socks5).await
    }

    /// The targets that were asked for, in order: `HOST:PORT`, names as names.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    async fn serve<F>(
        manner: Manner,
        leads_to: SocketAddr,
        serve: fn(TcpStream, Manner, SocketAddr, Asked) -> F,
    ) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Asked::default();
        let writes_down = asked.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(serve(tcp, manner.clone(), leads_to, writes_down.clone()));
            }
        });
        Self { address, asked }
    }
}

type Asked = Arc<Mutex<Vec<String>>>;

async fn http(mut tcp: TcpStream, manner: Manner, leads_to: SocketAddr, asked: Asked) -> std::io::Result<()> {
    let head = read_head(&mut tcp).await?;
    let target = head.strip_prefix("CONNECT ").unwrap().split_once(" HTTP/1.1\r\n").unwrap().0.to_owned();
    assert!(head.contains(&format!("\r\nHost: {target}\r\n")), "{head}");
    asked.lock().unwrap().push(target);
    match manner {
        Manner::Forwards => {}
        Manner::Asks(user, password) => {
            let right = data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes());
            if !head.contains(&format!("\r\nProxy-Authorization: Basic {right}\r\n")) {
                let answer =
                    "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n";
                return tcp.write_all(answer.as_bytes()).await;
            }
        }
        other => return nonsense(tcp, other).await,
    }
    let reached = TcpStream::connect(leads_to).await?;
    forward(tcp, reached, b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n").await
}

async fn socks5(mut tcp: TcpStream, manner: Manner, leads_to: SocketAddr, asked: Asked) -> std::io::Result<()> {
    assert_eq!(tcp.read_u8().await?, 5);
    let mut methods = vec![0; usize::from(tcp.read_u8().await?)];
    tcp.read_exact(&mut methods).await?;
    match manner {
        Manner::Forwards => tcp.write_all(&[5, 0]).await?,
        Manner::Asks(..) if !methods.contains(&2) => return tcp.write_all(&[5, 0xff]).await,
        Manner::Asks(user, password) => {
            tcp.write_all(&[5, 2]).await?;
            assert_eq!(tcp.read_u8().await?, 1);
            let right = [counted(&mut tcp).await?, counted(&mut tcp).await?] == [user.as_bytes(), password.as_bytes()];
            tcp.write_all(&[1, u8::from(!right)]).await?;
            if !right {
                return Ok(());
            }
        }
        other => return nonsense(tcp, other).await,
    }
    let mut request = [0; 4];
    tcp.read_exact(&mut request).await?;
    assert_eq!(request[..3], [5, 1, 0]);
    let host = match request[3] {
        1 => tcp.read_u32().await.map(std::net::Ipv4Addr::from)?.to_string(),
        4 => format!("[{}]", tcp.read_u128().await.map(std::net::Ipv6Addr::from)?),
        _ => String::from_utf8(counted(&mut tcp).await?).unwrap(),
    };
    let port = tcp.read_u16().await?;
    asked.lock().unwrap().push(format!("{host}:{port}"));
    let reached = TcpStream::connect(leads_to).await?;
    // A bound address of each kind, by the port that was asked for.
    let answer: &[u8] = match port % 3 {
        0 => &[5, 0, 0, 1, 10, 0, 0, 1, 0, 7],
        1 => &[5, 0, 0, 3, 3, b'a', b'.', b'b', 0, 7],
        _ => &[5, 0, 0, 4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0, 7],
    };
    forward(tcp, reached, answer).await
}

async fn counted(tcp: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(tcp.read_u8().await?)];
    tcp.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// The answer and the target's first bytes leave in one piece when the target speaks first.
async fn forward(mut tcp: TcpStream, mut reached: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    let mut first = answer.to_vec();
    let mut early = [0; 64];
    if let Ok(read) = reached.try_read(&mut early) {
        first.extend_from_slice(&early[..read]);
    }
    tcp.write_all(&first).await?;
    copy_bidirectional(&mut tcp, &mut reached).await.map(drop)
}

async fn nonsense(mut tcp: TcpStream, manner: Manner) -> std::io::Result<()> {
    match manner {
        Manner::Answers(bytes) => {
            tcp.write_all(&bytes).await?;
            let mut sink = [0; 1024];
            while tcp.read(&mut sink).await? > 0 {}
            Ok(())
        }
        Manner::HangsUp(bytes) => tcp.write_all(&bytes).await,
        _ => unreachable!("the manners of a working proxy"),
    }
}
