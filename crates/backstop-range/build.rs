//! Compiles the range's own bank API without `protoc`, and keeps its descriptors for the registration.

use prost::Message;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let set = protox::compile(["range/v1/bank.proto"], ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("bank.bin"), set.encode_to_vec())?;
    tonic_prost_build::configure().build_transport(false).compile_fds(set)?;
    Ok(())
}
