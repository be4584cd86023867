//! Nodes of which one is reached over its HTTPS port alone: the link runs through the gateway door.

use std::fs;

use crate::support::{Https, Machine, agree, until, write};

/// A folder is kept in step through the port; who ends its TLS reads nothing of the folder.
#[test]
fn a_folder_through_an_https_port_and_nothing_else() {
    a_folder_through_an_https_port(&[]);
}

/// The same where the door is the whole one, with keys and registry.
#[test]
fn a_folder_through_the_whole_door() {
    a_folder_through_an_https_port(&[("SEALTIDE_GATEWAY_APP", "yes")]);
}

fn a_folder_through_an_https_port(more: &[(&str, &str)]) {
    let (office, home, https) = (Machine::new(), Machine::new(), Https::new());
    let marker = "MARKER-of-the-office-4417";
    write(&office.notes(), "plan.md", format!("{marker}\n"));
    let url = https.url();
    // Nobody listens at the address that it tells.
    let settings = [("SEALTIDE_LINK_TUNNEL", url.as_str()), ("SEALTIDE_LINK_ANNOUNCE", "127.0.0.1:9")];
    let node = office.up_in(&[&settings[..], more].concat(), &[office.notes_text()]);
    https.lead_to(node.gateway().strip_prefix("http://").unwrap().parse().unwrap());

    let joined = home.ok(&["join", node.ticket(), home.notes_text(), "--wait"]);
    assert_eq!(joined["in_step"], true);
    let _node = home.up(&[]);
    until("both are connected through the tunnel", || {
        let paths = [&office, &home].map(|machine| machine.ok(&["status"])["links"][0]["path"].clone());
        if paths.iter().all(|path| path == "tunnel") { Ok(()) } else { Err(format!("{paths:?}\n{}", home.told())) }
    });
    write(&home.notes(), "answer.md", format!("{marker} too\n"));
    until("the answer", || fs::read_to_string(office.notes().join("answer.md")).map_err(|error| error.to_string()));
    agree(&office, &home);
    let read = https.read();
    assert!(read.windows(14).any(|window| window == b"/st/v1/tunnel "), "the upgrade is seen");
    assert!(!read.windows(marker.len()).any(|window| window == marker.as_bytes()), "and nothing of the folder");
}

/// The TLS of the door itself, with nothing in front of it.
#[test]
fn a_folder_through_the_tls_of_the_door() {
    let (office, home) = (Machine::new(), Machine::new());
    write(&office.notes(), "plan.md", "through the TLS of the door\n");
    crate::nginx::certificate(office.root());
    let (certificate, key) = (office.root().join("leaf.pem"), office.root().join("leaf.key"));
    let (url, at) = {
        // Free now; the URL of the tunnel has to be known before the door opens.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        (format!("wss://localhost:{}", free.port()), free.to_string())
    };
    let settings = [
        ("SEALTIDE_LINK_TUNNEL", url.as_str()),
        ("SEALTIDE_LINK_ANNOUNCE", "127.0.0.1:9"),
        ("SEALTIDE_GATEWAY_APP", "yes"),
        ("SEALTIDE_GATEWAY_TLS_CERT", certificate.to_str().unwrap()),
        ("SEALTIDE_GATEWAY_TLS_KEY", key.to_str().unwrap()),
    ];
    let node = office.serve_in(&settings, &["up", "--listen", "127.0.0.1:0", "--gateway", &at, office.notes_text()]);
    assert!(node.gateway().starts_with("https://"), "{}", node.gateway());
    let joined = home.ok(&["join", node.ticket(), home.notes_text(), "--wait"]);
    assert_eq!(joined["in_step"], true);
    let _node = home.up(&[]);
    until("both are connected through the tunnel", || {
        let path = home.ok(&["status"])["links"][0]["path"].clone();
        if path == "tunnel" { Ok(()) } else { Err(format!("{path}\n{}", home.told())) }
    });
    agree(&office, &home);
}

/// Without the setting the gateway door has no tunnel, so no ticket leads through it.
#[test]
fn no_tunnel_without_the_setting() {
    let (office, home, https) = (Machine::new(), Machine::new(), Https::new());
    write(&office.notes(), "plan.md", "the plan\n");
    let node = office.up_in(&[("SEALTIDE_LINK_ANNOUNCE", "127.0.0.1:9")], &[office.notes_text()]);
    https.lead_to(node.gateway().strip_prefix("http://").unwrap().parse().unwrap());
    home.fails(&["join", node.ticket(), home.notes_text()], 7, "no_route");
    assert!(https.read().is_empty());
}
