#!/usr/bin/env bash
# The study of this folder, with pw.x (Quantum ESPRESSO) as the worker that computes LDA energies when it asks for them.
#   bash run.sh [options of `comitia run`]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'kill "$worker" 2>/dev/null || true; rm -rf "$scratch"' EXIT

(
    cd "$scratch"
    until [ -S /tmp/ipi_comitia-silicon ]; do sleep 0.5; done
    OMP_NUM_THREADS=1 exec pw.x -in "$here/data/pw.in" --ipi comitia-silicon:UNIX >pw.out 2>&1
) &
worker=$!
comitia run "$here/study.yaml" "$@"
