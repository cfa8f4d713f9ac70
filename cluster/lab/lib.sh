#!/usr/bin/env bash
# Shared by the other scripts of the lab; source it, do not run it.
# shellcheck disable=SC2034  # the variables are read by the scripts that source this file

LAB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(cd "$LAB/../.." && pwd)
NODES=(n0 n1)            # compute nodes; "login" is the third one
NODE_USER=skyslurm       # unprivileged user that SkyPilot logs in as; exists inside the nodes only
NODE_UID=${LAB_UID:-61001}
JOB_PYTHON=${LAB_JOB_PYTHON:-$REPO/.venv/bin/python} # has gpt2dist's dependencies installed

die() { echo "lab: $*" >&2; exit 1; }

# use_dir DIR: absolute path of the lab's folder, and the short id that its networks carry
use_dir() {
  [ -n "${1:-}" ] || die "usage: $(basename "$0") DIR"
  DIR=$(realpath -m "$1")
  [[ $DIR =~ ^/[A-Za-z0-9._/-]+$ ]] ||
    die "DIR may contain only letters, digits and . _ / - : $DIR"
  local sum
  sum=$(printf '%s' "$DIR" | cksum | cut -d' ' -f1)
  HASH=$(printf '%08x' "$sum")
  ID=sl${HASH:0:6}
}

# The start time makes a recorded pid safe to kill: a recycled pid has another one.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# node_pid NAME: pid (on this machine) of the node's first process, or failure when it is down
node_pid() {
  local pid born
  read -r pid born 2>/dev/null <"$DIR/nodes/$1/pid" || return 1
  [ -n "$pid" ] && [ "$(start_time "$pid")" = "$born" ] && echo "$pid"
}

# in_node NAME CMD...: run a command inside a node
in_node() {
  local pid
  pid=$(node_pid "$1") || die "node $1 is not running"
  shift
  nsenter -t "$pid" -m -n -u -p -- "$@"
}
