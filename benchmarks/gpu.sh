#!/usr/bin/env bash
# Everything that is measured on a GPU, on a fresh machine without a network, within nine minutes.
#
#     benchmarks/gpu.sh OUT [DATA_FOLDER MINUTES [PARTS_FOLDER]]
#
# Needs Python 3.11 or later (PYTHON=... chooses one) with NumPy, SciPy, h5py, threadpoolctl and CuPy, for its tests pytest
# and hypothesis; pytest-xdist, nvidia-cudnn-frontend, nvmath-python, torch, torchdiffeq, jax and diffrax are used where
# they are. WHEELS=folder has wheels of what Python lacks, which this run alone uses. Writes OUT/gpu.json and OUT/gpu.md,
# with what was skipped for want of a package.
#
# With a DATA_FOLDER (CIFAR-10 as published) the last MINUTES train on it; the checkpoint goes to OUT/checkpoint in at most
# 6 files of at most 15 MB. PARTS_FOLDER, the OUT/checkpoint of an earlier run, says where to go on from.
# ONLY="card kernels" runs these parts alone. Ends with 2 where there is no GPU, with 3 where Python lacks what
# nothing here can do without: the packages of the command line, plots and downloads are not needed.
set -euo pipefail

if [ $# -lt 1 ] || [ $# -eq 2 ] || [ $# -gt 4 ]; then
    sed -n '2,15s/^# \{0,1\}//p' "$0" >&2
    exit 64
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-}
if [ -z "$python" ]; then # the first that has CuPy: there may be one beside that of the system
    for name in python3 python3.12; do
        if "$name" -c 'import importlib.util as u, sys
sys.exit(sys.version_info < (3, 11) or u.find_spec("cupy") is None)' 2>/dev/null; then
            python=$name
            break
        fi
    done
fi
python=${python:-python3}
words=("$out")
if [ $# -ge 3 ]; then
    words+=(--data "$(cd "$2" && pwd)" --minutes "$3")
fi
if [ $# -eq 4 ]; then
    words+=(--from "$(cd "$4" && pwd)")
fi
if [ -n "${ONLY:-}" ]; then
    # shellcheck disable=SC2206  # several words
    words+=(--only $ONLY)
fi

missing=$("$python" -c '
from importlib.util import find_spec
needed = "numpy scipy h5py threadpoolctl".split()
print(*(name for name in needed if find_spec(name) is None))')
if [ -n "$missing" ]; then
    echo "$python lacks: $missing; install them, or name another Python in PYTHON" | tee "$out/gpu.md" >&2
    exit 3
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A copy, so that the build leaves nothing in the tree.
mkdir "$work/source" "$work/site"
tar -C "$root" --exclude=./.git --exclude=./.venv --exclude=./build --exclude='*.egg-info' --exclude=__pycache__ \
    --exclude=./runs -cf - . | tar -C "$work/source" -xf -
if ! "$python" -m pip install --quiet --no-index --no-deps --no-build-isolation --disable-pip-version-check \
    --target "$work/site" "$work/source" >"$work/install.log" 2>&1; then
    echo "pip could not install the package, so the tree itself is used:" >&2
    tail -n 5 "$work/install.log" >&2
    ln -s "$work/source" "$work/site/odegrad"
fi
# Each wheel by itself, so that one that fails leaves the others; and to a folder of its own, since pip leaves out what its
# target has already, which several wheels share (`nvidia`, `cuda`).
for wheel in ${WHEELS:+"$WHEELS"/*.whl}; do
    rm -rf "$work/wheel"
    if "$python" -m pip install --quiet --no-index --no-deps --disable-pip-version-check --target "$work/wheel" \
        "$wheel" >"$work/install.log" 2>&1; then
        cp -R "$work/wheel/." "$work/site/"
    else
        echo "pip could not install $wheel, so this run does without:" >&2
        tail -n 5 "$work/install.log" >&2
    fi
done
cd "$work/source"
PYTHONPATH="$work/site${PYTHONPATH:+:$PYTHONPATH}" "$python" -m benchmarks.gpu "${words[@]}"
