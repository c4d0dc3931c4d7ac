//! Compiles the APIs of the range's own participants without `protoc`, and keeps their descriptors for the
//! registration.

use prost::Message;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let set =
        protox::compile(["range/v1/bank.proto", "range/v1/bench.proto", "range/v1/ledger.proto"], ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("bank.bin"), set.encode_to_vec())?;
    tonic_prost_build::configure().build_transport(false).compile_fds(set)?;
    Ok(())
}
