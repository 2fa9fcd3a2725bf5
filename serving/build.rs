//! Compiles the protocol's definition, without a protoc of the system.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let definition = "proto/grpc_inference.proto";
    println!("cargo::rerun-if-changed={definition}");
    let files = protox::compile([definition], ["proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .build_transport(false)
        .bytes(".")
        .btree_map(".")
        .compile_fds(files)?;
    Ok(())
}
