//! A proxy that opens TLS, as companies run them: it ends the TLS of the dialler with a certificate that its own
//! authority issued for the occasion, and dials on with one of its own. It sees everything that is not protected
//! beneath.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::raw::{Raw, client, hybrid, provider, read_head};

/// The name of the authority, as certificates show it.
pub const AUTHORITY: &str = "Inspecting Authority";

/// An inspecting HTTP proxy on a port of loopback.
pub struct Inspector {
    pub address: SocketAddr,
    /// The certificate of its authority: whoever trusts it does not see that it is there.
    pub root: CertificateDer<'static>,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Inspector {
    /// A proxy that knows where every target is: at `leads_to`. `keeps_chain`: whether it shows its authority's
    /// certificate too.
    pub async fn start(leads_to: SocketAddr, keeps_chain: bool) -> Self {
        let (config, root) = reissued(keeps_chain);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let looking = seen.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(inspect(tcp, leads_to, config.clone(), looking.clone()));
            }
        });
        Self { address, root, seen }
    }

    /// Every byte that it could read, both ways.
    pub fn seen(&self) -> Vec<u8> {
        self.seen.lock().unwrap().clone()
    }
}

/// The configuration of a server with a certificate for `node.invalid` that the authority issued: names are copied, as
/// such proxies do.
fn reissued(keeps_chain: bool) -> (Arc<ServerConfig>, CertificateDer<'static>) {
    let authority_key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut authority = rcgen::CertificateParams::default();
    authority.distinguished_name.push(rcgen::DnType::CommonName, AUTHORITY);
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).unwrap().der().clone();
    let issuer = rcgen::Issuer::new(authority, &authority_key);
    let leaf_key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let names = ["node.invalid".to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let leaf = params.signed_by(&leaf_key, &issuer).unwrap().der().clone();
    let chain = if keeps_chain { vec![leaf, root.clone()] } else { vec![leaf] };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider(hybrid()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    (Arc::new(config), root)
}

async fn inspect(
    mut tcp: TcpStream,
    leads_to: SocketAddr,
    config: Arc<ServerConfig>,
    seen: Arc<Mutex<Vec<u8>>>,
) -> std::io::Result<()> {
    let head = read_head(&mut tcp).await?;
    assert!(head.starts_with("CONNECT "), "{head}");
    tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    let near = TlsAcceptor::from(config).accept(tcp).await?;
    let far = Raw::tls(leads_to, client(hybrid(), None)).await?;
    let (mut near_read, mut near_write) = tokio::io::split(near);
    let (mut far_read, mut far_write) = tokio::io::split(far);
    let (up, down) = (seen.clone(), seen);
    let up = tokio::spawn(async move { look(&mut near_read, &mut far_write, &up).await });
    look(&mut far_read, &mut near_write, &down).await?;
    up.abort();
    Ok(())
}

async fn look<R, W>(from: &mut R, to: &mut W, seen: &Mutex<Vec<u8>>) -> std::io::Result<()>
where
    R: tokio::io::AsyncRead + Unpin,
    W: tokio::io::AsyncWrite + Unpin,
{
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        seen.lock().unwrap().extend_from_slice(&bytes[..read]);
        to.write_all(&bytes[..read]).await?;
        to.flush().await?;
    }
}
