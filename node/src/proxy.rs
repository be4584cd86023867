//! Through which proxy this node dials: the settings, and where they say nothing the variables that every program
//! knows. Names in lower case go before those in upper case, as in curl.

use sealtide_link::ProxySettings;

use crate::config::{Config, Origin};

/// Variables that name a proxy for the connections of this node, the first that is set and not empty counts. There is
/// no `HTTP_PROXY`: links are TLS.
const PROXY: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
/// Variables that name targets without a proxy.
const NO_PROXY: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// The proxy settings that hold in this process.
pub(crate) fn settings(config: &Config) -> ProxySettings {
    settings_of(config, |name| std::env::var(name).ok())
}

fn settings_of(config: &Config, variable: impl Fn(&str) -> Option<String>) -> ProxySettings {
    let first = |names: &[&'static str]| {
        names.iter().find_map(|name| Some((*name, variable(name).filter(|value| !value.trim().is_empty())?)))
    };
    let url = config.text("proxy", "url");
    let settings = match (url, first(&PROXY)) {
        ("none", _) | ("", None) => return ProxySettings::default(),
        ("", Some((name, url))) => ProxySettings::new(&url, name),
        (url, _) => {
            let named_by = match config.origin("proxy", "url") {
                Origin::Variable(name) => name.clone(),
                _ => "proxy.url".to_owned(),
            };
            ProxySettings::new(url, &named_by)
        }
    };
    let bypass = first(&NO_PROXY).map(|(_, bypass)| bypass).unwrap_or_default();
    settings.bypassing(&bypass).bypassing(config.text("proxy", "bypass")).through(config.text("proxy", "through"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, variables: &[(&str, &str)], host: &str) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, file).unwrap();
        let config = Config::load(&path, true).unwrap();
        let value = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let settings = settings_of(&config, value);
        let proxy = settings.proxy_for(host, 443).unwrap();
        proxy.map(|proxy| format!("{} {proxy}", settings.named_by()))
    }

    #[test]
    fn variables_in_the_order_of_curl() {
        let check = |variables: &[(&str, &str)], expected: Option<&str>| {
            assert_eq!(found("", variables, "192.0.2.1").as_deref(), expected, "{variables:?}");
        };
        check(&[], None);
        check(&[("HTTPS_PROXY", "p:1")], Some("HTTPS_PROXY http://p:1"));
        check(&[("HTTPS_PROXY", "p:1"), ("https_proxy", "q:1")], Some("https_proxy http://q:1"));
        check(&[("ALL_PROXY", "socks5://p:1"), ("HTTPS_PROXY", "")], Some("ALL_PROXY socks5://p:1"));
        check(&[("HTTP_PROXY", "p:1"), ("http_proxy", "p:1")], None);
        check(&[("HTTPS_PROXY", "p:1"), ("NO_PROXY", "192.0.2.0/24")], None);
        check(&[("HTTPS_PROXY", "p:1"), ("NO_PROXY", "*"), ("no_proxy", "other")], Some("HTTPS_PROXY http://p:1"));
    }

    #[test]
    fn settings_go_before_variables() {
        let file = "[proxy]\nurl = \"socks5://me:pw@own:9\"\nbypass = \"10.0.0.0/8\"\nthrough = \"10.0.0.7\"\n";
        let variables = [("HTTPS_PROXY", "p:1"), ("NO_PROXY", "172.16.0.0/12")];
        assert_eq!(found(file, &variables, "192.0.2.1").as_deref(), Some("proxy.url socks5://own:9"));
        assert_eq!(found(file, &variables, "10.0.0.6"), None);
        assert_eq!(found(file, &variables, "172.16.0.6"), None);
        assert_eq!(found(file, &variables, "10.0.0.7").as_deref(), Some("proxy.url socks5://own:9"));
        assert_eq!(found("[proxy]\nurl = \"none\"\n", &variables, "192.0.2.1"), None);
    }
}
