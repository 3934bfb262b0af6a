//! Who may ask: whoever has the token, if there is one; and, without one, nobody's browser on behalf of a stranger's
//! page.
//!
//! A page of a stranger can make a browser ask any address that its owner can reach, under a name of the stranger's
//! own (DNS rebinding), and so read the answers. The name stands in the header Host.

use std::net::IpAddr;
use std::path::Path;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// What a request has to show.
#[derive(Debug, Default)]
pub struct Gate {
    token: Option<Token>,
    hosts: Vec<String>,
}

#[derive(Default)]
struct Token(Zeroizing<String>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(***)")
    }
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The token is missing or wrong.
    Token,
    /// The agent is not called by this name.
    Host(String),
}

impl Gate {
    /// Asks for this token, if there is one; answers by these names, and by those that no stranger can give.
    pub fn new(token: Option<Zeroizing<String>>, hosts: Vec<String>) -> Gate {
        Gate {
            token: token.map(Token),
            hosts,
        }
    }

    /// Whether a token is asked for.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether a request with these headers may be answered.
    pub(super) fn admit(&self, authorization: Option<&[u8]>, host: Option<&str>) -> Result<(), Refusal> {
        let Some(token) = &self.token else {
            return self.admit_host(host);
        };
        let shown = authorization.and_then(|text| {
            let (scheme, rest) = text.split_at_checked("Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then(|| rest.trim_ascii())
        });
        match shown {
            Some(shown) if bool::from(shown.ct_eq(token.0.as_bytes())) => Ok(()),
            _ => Err(Refusal::Token),
        }
    }

    /// Addresses and names without a dot lead nowhere else than here or into this network.
    fn admit_host(&self, host: Option<&str>) -> Result<(), Refusal> {
        let Some(host) = host else {
            return Err(Refusal::Host(String::new()));
        };
        let name = without_port(host);
        let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let is_ours = || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name));
        if !name.is_empty() && (is_address || !name.contains('.') || is_ours()) {
            return Ok(());
        }
        Err(Refusal::Host(host.to_owned()))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

/// Whether an address is this host's own only: `unix:PATH`, or one of the loopback.
pub fn is_local(address: &str) -> bool {
    if let Some(path) = address.strip_prefix("unix:") {
        return !Path::new(path).as_os_str().is_empty();
    }
    let host = without_port(address).trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_token_the_name_decides() {
        let gate = Gate::new(None, vec!["web-1.example.com".to_owned()]);
        for host in [
            "127.0.0.1:8080",
            "127.0.0.1",
            "[::1]:8080",
            "[::1]",
            "::1",
            "localhost:1",
            "web-1",
            "WEB-1.example.com:8080",
        ] {
            assert_eq!(gate.admit(None, Some(host)), Ok(()), "{host}");
        }
        for host in [
            "evil.example.com",
            "evil.example.com:80",
            "127.0.0.1.evil.com",
            "",
            ":80",
            "a.b",
        ] {
            let refused = Err(Refusal::Host(host.to_owned()));
            assert_eq!(gate.admit(None, Some(host)), refused, "{host}");
        }
        assert_eq!(gate.admit(None, None), Err(Refusal::Host(String::new())));
    }

    #[test]
    fn a_token_has_to_be_shown_whole() {
        let gate = Gate::new(Some(Zeroizing::new("secret".to_owned())), Vec::new());
        let admit = |text: &str| gate.admit(Some(text.as_bytes()), Some("evil.example.com"));
        assert_eq!(admit("Bearer secret"), Ok(()));
        assert_eq!(admit("bearer  secret"), Ok(()));
        for text in [
            "",
            "secret",
            "Bearer",
            "Bearer ",
            "Bearer secre",
            "Bearer secrets",
            "Basic secret",
        ] {
            assert_eq!(admit(text), Err(Refusal::Token), "{text}");
        }
        assert_eq!(gate.admit(None, Some("127.0.0.1")), Err(Refusal::Token));
        assert!(!format!("{gate:?}").contains("secret"));
    }

    #[test]
    fn addresses_of_this_host() {
        for address in [
            "127.0.0.1:80",
            "127.9.9.9:80",
            "[::1]:80",
            "localhost:80",
            "unix:/run/f.sock",
        ] {
            assert!(is_local(address), "{address}");
        }
        for address in ["0.0.0.0:80", ":80", "10.0.0.1:80", "[::]:80", "unix:"] {
            assert!(!is_local(address), "{address}");
        }
    }
}
