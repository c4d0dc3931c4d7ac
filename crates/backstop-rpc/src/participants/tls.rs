//! TLS to participants: rustls with the machine's roots, built once, when the first https endpoint is
//! dialled.
//!
//! # Not here
//! The crypto provider: the binary installs it for the whole process, so that a FIPS build has one place
//! to look at.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, crypto::CryptoProvider};
use std::sync::{Arc, OnceLock};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const ALPN_H2: &[u8] = b"h2";

/// What all TLS connections of the process share.
#[derive(Debug, Default)]
pub(super) struct Tls {
    extra_roots_pem: Vec<u8>,
    config: OnceLock<Result<Arc<ClientConfig>, String>>,
}

impl Tls {
    pub(super) fn new(extra_roots_pem: Vec<u8>) -> Self {
        Self { extra_roots_pem, config: OnceLock::new() }
    }

    /// Shakes hands as a client that speaks HTTP/2 and nothing else.
    ///
    /// # Errors
    /// What went wrong, for people. No byte of a request has been sent.
    pub(super) async fn connect(&self, host: &str, tcp: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let config = self.config.get_or_init(|| self.build()).clone()?;
        let name = ServerName::try_from(host.to_owned()).map_err(|e| format!("\"{host}\": {e}"))?;
        let stream =
            TlsConnector::from(config).connect(name, tcp).await.map_err(|e| format!("TLS handshake: {e}"))?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
            return Err("TLS handshake: the peer does not speak HTTP/2".to_owned());
        }
        Ok(stream)
    }

    fn build(&self) -> Result<Arc<ClientConfig>, String> {
        let provider = CryptoProvider::get_default().ok_or("no crypto provider is installed")?;
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "some of the machine's certificate authorities cannot be read");
        }
        roots.add_parsable_certificates(found.certs);
        for certificate in CertificateDer::pem_slice_iter(&self.extra_roots_pem) {
            let certificate = certificate.map_err(|e| format!("extra_roots_pem: {e}"))?;
            roots.add(certificate).map_err(|e| format!("extra_roots_pem: {e}"))?;
        }
        let mut config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols.push(ALPN_H2.to_vec());
        Ok(Arc::new(config))
    }
}
