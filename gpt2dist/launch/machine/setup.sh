#!/usr/bin/env bash
# setup.sh: install gpt2dist and the locked packages on a rented machine, once.
#
# The environment is $GPT2DIST_VENV (~/gpt2dist-venv). A stamp in it names the lock that it was
# made from: the same lock is never installed twice, neither by a second task on the machine nor
# by the other nodes of a cluster with one home directory, which wait here for the first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
venv=${GPT2DIST_VENV:-$HOME/gpt2dist-venv}
lock=$(cat constraints.txt pyproject.toml | sha256sum)
stamp=$venv/.installed-${lock:0:16}

exec 9>"$venv.lock"
flock 9
if [ -e "$stamp" ]; then
  echo "setup: $venv is up to date"
  exit 0
fi
export PATH=$HOME/.local/bin:$PATH # where SkyPilot puts uv
type -P uv >/dev/null || python3 -m pip install --quiet --user uv
# A build of torch that this machine's driver can run: the newest one may ask for a newer driver.
if nvidia-smi >/dev/null 2>&1; then export UV_TORCH_BACKEND=auto; fi
started=$SECONDS
[ -x "$venv/bin/python" ] || uv venv --quiet --python 3.11 "$venv"
uv pip install --quiet --python "$venv/bin/python" --constraint constraints.txt --editable .
touch "$stamp"
echo "setup: installed into $venv in $((SECONDS - started)) s"
