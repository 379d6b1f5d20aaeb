//! Compiles `agent.proto` when the feature `grpc` is on, without any installed `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=agent.proto");
    if std::env::var_os("CARGO_FEATURE_GRPC").is_some() {
        let descriptors = protox::compile(["agent.proto"], ["."])?;
        tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    }
    Ok(())
}
