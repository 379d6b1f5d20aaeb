#!/bin/sh
# Cargo's wrapper around rustc for this workspace's own crates: has the agent's tell the fuzzer which of its branches are
# reached. Its dependencies are compiled as ever. These are options of the stable compiler.
set -eu
case " $* " in
    *' --crate-name node_agent '* | *' --crate-name deployex_fuzz '*)
        exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
            -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
            -Cllvm-args=-sanitizer-coverage-trace-compares
        ;;
    *) exec "$@" ;;
esac
