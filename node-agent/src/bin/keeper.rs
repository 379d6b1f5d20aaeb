//! `deployex-keeper`, a program of its own because every replica has one: it must not carry the agent's weight.

fn main() -> std::process::ExitCode {
    node_agent::keeper::main()
}
