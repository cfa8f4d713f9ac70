#!/usr/bin/env bash
# down.sh DIR [--purge]: stop everything that up.sh started, remove the networks.
# Killing the first process of a node makes the kernel end all of the node: slurmd, sshd,
# slurmctld, munged, jobs and SkyPilot's API server. Safe to run twice. --purge deletes DIR too.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
use_dir "${1:-}"

for node in login "${NODES[@]}"; do
  if pid=$(node_pid "$node"); then
    kill -KILL "$pid"
    for _ in $(seq 50); do [ -e "/proc/$pid" ] || break; sleep 0.1; done
  fi
  rm -f "$DIR/nodes/$node/pid"
done
for node in "${NODES[@]}" login; do # bridge and cables go with their networks
  if [ -e "/run/netns/$ID-$node" ]; then ip netns del "$ID-$node"; fi
done
rm -rf "/tmp/sky_ssh_$HASH" # SkyPilot's SSH sockets of this DIR
if [ "${2:-}" = --purge ]; then rm -rf "$DIR"; fi
