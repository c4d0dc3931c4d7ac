//! Compiles the bank's protos without `protoc`, one descriptor set for each service, so that each one's
//! reflection shows only what it serves.

use prost::Message;
use std::path::PathBuf;

const PROTOS: &str = "../../examples/transfer/proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed={PROTOS}");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    for service in ["ledger", "risk", "audit"] {
        let set = protox::compile([format!("bank/{service}/v1/{service}.proto")], [PROTOS])?;
        std::fs::write(out.join(format!("{service}.bin")), set.encode_to_vec())?;
        tonic_prost_build::configure().build_transport(false).compile_fds(set)?;
    }
    Ok(())
}
