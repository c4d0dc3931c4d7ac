//! Where an endpoint is: `http://host:port` or `https://host:port`, and nothing more.

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

/// A participant's endpoint, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `https`.
    pub(super) tls: bool,
    /// A name or an IP address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    authority: Authority,
}

impl Address {
    /// Checks an endpoint as it stands in a participant's registration.
    ///
    /// # Errors
    /// What is wrong with it, for the caller's field violation.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || format!("\"{text}\" is not of the form http://host:port or https://host:port");
        let uri: Uri = text.parse().map_err(|_| form())?;
        let parts = uri.into_parts();
        let tls = match parts.scheme.as_ref().map(Scheme::as_str) {
            Some("http") => false,
            Some("https") => true,
            Some(_) | None => return Err(form()),
        };
        let authority = parts.authority.ok_or_else(form)?;
        let bare = parts.path_and_query.as_ref().is_none_or(|path| path.as_str() == "/");
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        match authority.port_u16() {
            Some(port) if bare && port != 0 && !host.is_empty() && !authority.as_str().contains('@') => {
                Ok(Self { tls, host, port, authority })
            }
            Some(_) | None => Err(form()),
        }
    }

    /// The request URI of a method at this endpoint.
    pub(super) fn uri(&self, path: &PathAndQuery) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(if self.tls { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path.clone());
        // Scheme, authority and path are all there, the only thing that `from_parts` checks.
        Uri::from_parts(parts).unwrap_or_default()
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_scheme_a_host_and_a_port() {
        let address = Address::parse("https://ledger.bank.internal:8443").unwrap();
        assert!(address.tls);
        assert_eq!((address.host.as_str(), address.port), ("ledger.bank.internal", 8443));
        assert_eq!(Address::parse("http://[::1]:50051/").unwrap().host, "::1");
        assert_eq!(address.uri(&"/a.B/C".parse().unwrap()), "https://ledger.bank.internal:8443/a.B/C");
        for wrong in [
            "",
            "ledger:8443",
            "http://ledger",
            "http://ledger:0",
            "grpc://ledger:1",
            "http://ledger:1/path",
            "http://u:p@ledger:1",
            "http://:1",
            "http://ledger:99999",
            "/a",
        ] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
