#!/bin/sh
# What a device install weighs: `pip install .` in an empty environment, by du, without pip and setuptools.
#   sh tests/packaging/install_size.sh [PYTHON]     exits 1 above the bar
set -eu
bar_mib=350
checkout=$(cd "$(dirname "$0")/../.." && pwd)
python=${1:-$(command -v python3.11 || command -v python3)}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# A copy: pip builds inside the folder it installs from.
(cd "$checkout" && tar -c pyproject.toml README.md LICENSE agent build_models) | tar -x -C "$scratch"
"$python" -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check "$scratch" >"$scratch/log" 2>&1 ||
  { tail -15 "$scratch/log"; exit 1; }
"$scratch/venv/bin/python" -m pip uninstall --quiet --yes setuptools pip >/dev/null 2>&1

size_mib=$(du -sm "$scratch/venv" | cut -f1)
echo "MiB  package"
du -sm "$scratch"/venv/lib/python3*/site-packages/* | sort -rn | head -8 | sed "s|$scratch.*/||"
echo "device install on $("$python" -V): $size_mib MiB, at most $bar_mib are allowed"
[ "$size_mib" -le "$bar_mib" ]
