//! When the node says that it is ready: not before every door is open. Spec: gateway §1.2, E19.

use std::sync::Arc;

use super::{Node, lock};

impl Node {
    /// Whether link, gateway, folders and control socket are open: said by whoever opens them, and until `shutdown`.
    pub(crate) fn set_doors_open(&self, open: bool) {
        lock(&self.0.doors).open = open;
    }

    /// For whoever does the work of a command on the disk, as long as it is under way.
    pub(crate) fn at_work(&self) -> Arc<()> {
        self.0.at_work.clone()
    }

    /// Whether such work is under way.
    pub(crate) fn is_at_work(&self) -> bool {
        Arc::strong_count(&self.0.at_work) > 1
    }

    /// What is not open yet.
    // Spec: GW-109
    pub(crate) fn readiness(&self) -> Result<(), String> {
        if !lock(&self.0.doors).open {
            return Err("not every door is open".to_owned());
        }
        let failed = self.shares().values().find_map(|share| share.status().failed);
        let failed = failed.or_else(|| self.spaces().iter().find_map(|space| self.unopened(space)));
        failed.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn status(at: SocketAddr, path: &str) -> u16 {
        let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
        let text = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer[9..12].parse().unwrap()
    }

    // Proves: GW-109
    #[tokio::test(flavor = "multi_thread")]
    async fn ready() {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::new_at(dir.path().join("home"));
        let at = node.open_gateway("127.0.0.1:0".parse().unwrap()).await.unwrap();
        // The process answers; the link is not open, and nothing serves.
        assert_eq!(
            (status(at, "/healthz").await, status(at, "/readyz").await, status(at, "/health").await),
            (200, 503, 503)
        );
        node.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        node.serve().unwrap();
        assert_eq!(status(at, "/readyz").await, 503, "the control socket is still to come");
        node.set_doors_open(true);
        assert_eq!((status(at, "/readyz").await, status(at, "/health").await), (200, 200));
        // A folder that cannot be opened.
        let space = node.create_space("Notes", "folder").unwrap();
        lock(&node.0.unopened).insert(space, "no such directory".to_owned());
        assert_eq!((status(at, "/healthz").await, status(at, "/readyz").await), (200, 503));
        lock(&node.0.unopened).clear();
        assert_eq!(status(at, "/readyz").await, 200);
        node.set_doors_open(false);
        assert_eq!(status(at, "/readyz").await, 503);
        node.shutdown().await;
    }
}
