//! Compiles the contract without `protoc`: protox parses it, tonic generates from the descriptor set.

use prost::Message;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from("../../proto");
    let files = [
        "backstop/v1/definition_service.proto",
        "backstop/v1/operator_service.proto",
        "backstop/v1/participant_service.proto",
        "backstop/v1/saga_service.proto",
        "backstop/participant/v1/rollback.proto",
    ];
    println!("cargo:rerun-if-changed=../../proto");
    let set = protox::compile(files, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), set.encode_to_vec())?;
    tonic_prost_build::configure()
        .extern_path(".google.rpc", "::tonic_types::pb")
        // Ordered maps: a request is fingerprinted by its encoding.
        .btree_map(".")
        .bytes(".backstop.v1")
        .build_transport(false)
        .compile_fds(set)?;
    Ok(())
}
