//! Generates the code from the .proto files, without a system protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "signer",
        "reason",
        "admin",
        "ledger",
        "journal",
        "enroll",
        "enroll_journal",
    ]
    .map(|name| format!("hsm/v1/{name}.proto"));
    let privval = String::from("cometbft/privval.proto");
    let etcd = String::from("etcd/kv.proto");
    for file in files.iter().chain([&privval, &etcd]) {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(&files, ["."])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(
        out.join("hsm_v1.descriptors"),
        prost::Message::encode_to_vec(&descriptors),
    )?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    tonic_prost_build::configure().compile_fds(protox::compile([privval], ["."])?)?;
    tonic_prost_build::configure().compile_fds(protox::compile([etcd], ["."])?)?;
    Ok(())
}
