//! TLS: a participant whose certificate is signed by an authority that we trust, and one that is not.
//!
//! `tls/` holds a test authority and a certificate for `localhost`, good for a hundred years. The
//! authority's own key is not kept.

use crate::fixture::LONG;
use crate::world::{NO_CONNECTION, World, evidence, said};
use backstop_core::Code;
use backstop_rpc::participants::ParticipantSettings;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};

const AUTHORITY: &[u8] = include_bytes!("tls/ca.pem");
const CERTIFICATE: &[u8] = include_bytes!("tls/server.pem");
const KEY: &[u8] = include_bytes!("tls/server.key");

#[tokio::test]
async fn a_participant_behind_tls_is_called_if_its_authority_is_trusted() {
    // As the binary does, for the whole process; another test may have been first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(CERTIFICATE, KEY));
    let (_, health) = tonic_health::server::health_reporter();
    let server = tokio::spawn(
        Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(health)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let trusting = ParticipantSettings { extra_roots_pem: AUTHORITY.to_vec(), ..Default::default() };
    let got = World::new(trusting, std::slice::from_ref(&endpoint)).call(LONG).await;
    assert_eq!(evidence(&got), said(Code::Unimplemented), "the server answered: it has no ledger");
    let got = World::new(ParticipantSettings::default(), &[endpoint]).call(LONG).await;
    assert_eq!(evidence(&got), NO_CONNECTION, "nobody vouches for it");
    server.abort();
}
