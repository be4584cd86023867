#!/usr/bin/env bash
# How long two folders take to be equal: sealtide beside rsync, git and Syncthing, in one run, on the same data.
#
#   bench/sync.sh [--rounds N] [--json FILE] [--cases a,b] [--tools a,b] [--tree DIR] [--work DIR] [--sealtide PROGRAM]
#   SCALE=small bench/sync.sh          sizes divided by 16, for a quick look
#
# Cases:  file-cold   one file of 1 GiB random bytes       file-edits  the same after ten edits of 4 KiB
#         many-cold   10,000 files of 4 KiB                many-edits  the same after ten of them changed
#         tree-cold   a tree of real files, up to 300 MB
# Tools that are not installed are skipped with a word. Every result is compared with `diff -r`.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

command -v python3 >/dev/null || { echo "bench: python3 is missing (make setup)" >&2; exit 1; }

arguments=("$@")
if [[ " $* " != *" --sealtide"[\ =]* && " $* " != *" --help "* && " $* " != *" -h "* ]]; then
    binary=${CARGO_TARGET_DIR:-$root/target}/release/sealtide
    # The one profile for everything that runs is also the one that is measured.
    [[ -x $binary ]] || (cd "$root" && cargo build --release --package sealtide-node --bin sealtide)
    arguments+=(--sealtide "$binary")
fi
exec python3 "$root/bench/sync.py" ${SCALE:+--scale "$SCALE"} "${arguments[@]}"
