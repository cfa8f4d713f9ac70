#!/usr/bin/env bash
# env.sh DIR: print the exports for working with the lab in DIR. Use: eval "$(./env.sh DIR)"
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
use_dir "${1:-}"
path=$PATH
[[ :$path: = *:$DIR/bin:* ]] || path=$DIR/bin:$path
cat <<OUT
unset PYENV_VERSION RAY_ADDRESS
export HOME='$DIR/home'
export PATH='$path'
export SLURM_CONF='$DIR/etc/slurm.conf'
export PYTHONPATH='$LAB/no_probe'
export SKYPILOT_USER_ID='$HASH'
export SKYPILOT_DISABLE_USAGE_COLLECTION=1
export RAY_USAGE_STATS_ENABLED=0
export DO_NOT_TRACK=1
export PIP_NO_INDEX=1
export PIP_FIND_LINKS='$DIR/wheels'
OUT
