//! A relay behind nginx: with its TLS passed through unopened (bind 1), and with TLS that ends in nginx and a path of its own
//! (bind 0). Without nginx, which `.ci/setup` installs, these tests say so and look at nothing.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{Machine, Running, agree, until, write};

const STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A running nginx; it ends when this is dropped.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_there() -> bool {
    let found = Command::new("nginx").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: nginx is not installed");
    }
    found
}

/// A port that nobody listens on now. nginx does not tell which one it got, so it is chosen before.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts nginx with these blocks, its files below `root`.
fn nginx(root: &Path, port: u16, head: &str, blocks: &str) -> Nginx {
    let conf = root.join("nginx.conf");
    let at = root.display();
    let text = format!(
        "{head}\ndaemon off;\nmaster_process off;\npid {at}/nginx.pid;\nerror_log {at}/nginx.log;\nevents {{}}\n{blocks}\n"
    );
    fs::write(&conf, text).unwrap();
    // A test as root has its files in a directory of root alone.
    let user = if rustix::process::getuid().is_root() { "user root;" } else { "" };
    let mut command = Command::new("nginx");
    command.arg("-p").arg(root).arg("-c").arg(&conf).arg("-g").arg(user);
    let mut child = Nginx(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    until("nginx listens", || {
        if let Some(status) = child.0.try_wait().unwrap() {
            panic!("nginx ended with {status}: {}", fs::read_to_string(root.join("nginx.log")).unwrap_or_default());
        }
        std::net::TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
    });
    child
}

fn openssl(at: &Path, args: &[&str]) {
    let done = Command::new("openssl").current_dir(at).args(args).output().unwrap();
    assert!(done.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// An authority, and a certificate of it for localhost.
pub(crate) fn certificate(at: &Path) -> PathBuf {
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let root =
        ["req", "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=Authority of a test"];
    openssl(at, &[&root[..], &key].concat());
    openssl(at, &[&["req", "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=localhost"][..], &key].concat());
    fs::write(at.join("names"), "subjectAltName=DNS:localhost\n").unwrap();
    let sign = ["x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
    openssl(at, &[&sign[..], &["-days", "2", "-extfile", "names", "-out", "leaf.pem"]].concat());
    at.join("ca.pem")
}

fn node_of(machine: &Machine) -> String {
    machine.ok(&["init"])["node"].as_str().unwrap().to_owned()
}

/// A folder is kept in step over the relay, and both logins are of this bind.
fn in_step_over(address: &str, office: &Machine, home: &Machine, variables: &[(&str, &str)], bind: u64) -> Running {
    write(&office.notes(), "plan.md", "over a relay behind nginx\n");
    let node = office.up_in(variables, &[office.notes_text(), "--relay", address]);
    until("the node is logged in", || {
        let relays = office.ok(&["status"])["relays"].clone();
        if relays[0]["up"] == true && relays[0]["bind"] == bind { Ok(()) } else { Err(relays.to_string()) }
    });
    let joined = home.run_in(variables, &["join", node.ticket(), home.notes_text(), "--wait"]);
    assert_eq!(joined.code, 0, "{} {}", joined.stdout, joined.stderr);
    assert_eq!(fs::read_to_string(home.notes().join("plan.md")).unwrap(), "over a relay behind nginx\n");
    // Again after a start: what the ticket said of the relay is remembered.
    let _again = home.up_in(variables, &[]);
    until("both are connected over the relay", || {
        let links = home.ok(&["status"])["links"].clone();
        if links[0]["path"] == "relay" { Ok(()) } else { Err(links.to_string()) }
    });
    write(&home.notes(), "answer.md", "and back\n");
    until("the answer", || fs::read_to_string(office.notes().join("answer.md")).map_err(|error| error.to_string()));
    agree(office, home);
    node
}

/// nginx passes the TLS through and never opens it: logins are bound to it as ever.
#[test]
fn a_relay_behind_nginx_that_passes_tls_through() {
    if !is_there() {
        return;
    }
    if !Path::new(STREAM).exists() {
        println!("skipped: {STREAM} is not installed (libnginx-mod-stream)");
        return;
    }
    let (vps, office, home) = (Machine::new(), Machine::new(), Machine::new());
    let port = free_port();
    let url = format!("wss://localhost:{port}");
    let relay = vps.serve(&["relay", "run", "--listen", "127.0.0.1:0", "--url", &url, "--allow", &node_of(&office)]);
    let listens = relay.ready()["listen"][0].as_str().unwrap();
    let blocks = format!("stream {{ server {{ listen 127.0.0.1:{port}; ssl_preread on; proxy_pass {listens}; }} }}");
    let _nginx = nginx(vps.root(), port, &format!("load_module {STREAM};"), &blocks);
    let variables = [("SEALTIDE_LINK_POLICY", "relay-only")];
    let _node = in_step_over(relay.ready()["relay"].as_str().unwrap(), &office, &home, &variables, 1);
    let status = vps.ok(&["relay", "status"]);
    assert_eq!((&status["bind"], &status["url"]), (&1.into(), &url.into()), "{status}");
    assert!(status["bytes_out"].as_u64().unwrap() > 1_000 && status["logins"].as_u64().unwrap() >= 2, "{status}");
}

/// TLS ends in nginx, under a name that an authority vouches for, and the relay is one of several things at that name.
// Proves: LK-101
#[test]
fn a_relay_behind_nginx_that_ends_tls_at_a_path() {
    if !is_there() {
        return;
    }
    let (vps, office, home) = (Machine::new(), Machine::new(), Machine::new());
    let authority = certificate(vps.root());
    let port = free_port();
    let url = format!("wss://localhost:{port}/tide/st/v1/relay");
    let run = ["relay", "run", "--listen", "127.0.0.1:0", "--behind-proxy", "--url", &url];
    let admit = ["--allow", &node_of(&office)];
    let relay = vps.serve_in(&[("SEALTIDE_RELAY_TRUSTED_PROXIES", "127.0.0.1/32")], &[&run[..], &admit].concat());
    let (listens, address) = (relay.ready()["listen"][0].as_str().unwrap(), relay.ready()["relay"].as_str().unwrap());
    let at = vps.root().display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {at}/{kind};"))
        .concat();
    let blocks = format!(
        "http {{ access_log off; {temporary}
        server {{
            listen 127.0.0.1:{port} ssl;
            server_name localhost;
            ssl_certificate {at}/leaf.pem;
            ssl_certificate_key {at}/leaf.key;
            ssl_protocols TLSv1.3;
            location /tide/ {{
                proxy_pass https://{listens}/;
                proxy_ssl_protocols TLSv1.3;
                proxy_http_version 1.1;
                proxy_set_header Host $host;
                proxy_set_header Upgrade $http_upgrade;
                proxy_set_header Connection upgrade;
                proxy_set_header X-Forwarded-For $remote_addr;
                proxy_buffering off;
                proxy_read_timeout 1h;
            }}
        }} }}"
    );
    let _nginx = nginx(vps.root(), port, "", &blocks);

    // Nobody is named who could vouch for nginx.
    office.fails(&["up", "--listen", "127.0.0.1:0", "--relay", address], 2, "relay_authorities");

    let authority = authority.to_str().unwrap();
    let variables = [("SEALTIDE_LINK_POLICY", "relay-only"), ("SEALTIDE_LINK_RELAY_AUTHORITIES", authority)];
    let _node = in_step_over(address, &office, &home, &variables, 0);
    let observed = office.ok(&["status"])["relays"][0]["observed"].clone();
    assert_eq!(observed, "127.0.0.1:1", "whom nginx speaks for; its port is not known, and nobody dials port 1");
    assert_eq!(vps.ok(&["relay", "status"])["bind"], 0);

    // The door of the relay itself is not for nodes that come straight.
    let found = Machine::new().run_in(&variables, &["doctor", address]);
    assert!(found.stdout.contains("no node in") && found.stdout.contains("login"), "{}", found.stdout);
    let found = home.run_in(&variables, &["doctor", address]);
    assert!(
        found.stdout.contains("logged in at relay") || found.stdout.contains("let this node in"),
        "{}",
        found.stdout
    );
}
