#!/usr/bin/env bash
# share_nfs.sh FOLDER...: rank 0's folders appear at the same path on every node of a task.
# share_nfs.sh --end FOLDER...: they do no more.
#
# Every rank writes its share of a checkpoint, so the nodes need one folder. Cloud machines have
# none; rank 0 lends its disk over NFS to the addresses of the other nodes and to nobody else.
set -euo pipefail
mapfile -t ips <<<"$SKYPILOT_NODE_IPS"
((${#ips[@]} > 1)) || exit 0
exports=${SHARE_NFS_EXPORTS:-/etc/exports.d/gpt2dist.exports}

if [ "$1" = --end ]; then
  shift
  if [ "$SKYPILOT_NODE_RANK" = 0 ]; then
    sudo rm -f "$exports"
    sudo exportfs -ra
    exit 0
  fi
  for folder in "$@"; do
    path=$(realpath "$folder")
    if mountpoint --quiet "$path"; then sudo umount --lazy "$path"; fi # rank 0 may be gone
  done
  exit 0
fi

if [ "$SKYPILOT_NODE_RANK" = 0 ]; then
  sudo apt-get install --yes --quiet nfs-kernel-server >/dev/null
  # Where the nodes work as root, as in the containers of some providers, its files are root's.
  squash=root_squash
  if [ "$(id -u)" = 0 ]; then squash=no_root_squash; fi
  lines=()
  for folder in "$@"; do
    mkdir -p "$folder"
    line=$(realpath "$folder")
    for ip in "${ips[@]:1}"; do line+=" $ip(rw,sync,no_subtree_check,$squash)"; done
    lines+=("$line")
  done
  sudo mkdir -p "$(dirname "$exports")"
  printf '%s\n' "${lines[@]}" | sudo tee "$exports" >/dev/null # in the place of an earlier call's
  sudo exportfs -ra
  exit 0
fi
sudo apt-get install --yes --quiet nfs-common >/dev/null
for folder in "$@"; do
  mkdir -p "$folder"
  path=$(realpath "$folder")
  mountpoint --quiet "$path" && continue
  tries=60
  # Short attribute caches: the other nodes look for files that rank 0 has just written.
  until sudo mount -t nfs -o actimeo=1 "${ips[0]}:$path" "$path" 2>/tmp/share_nfs.log; do
    if ((--tries == 0)); then
      echo "share_nfs: rank 0 does not lend $path: $(tail -n 1 /tmp/share_nfs.log)" >&2
      exit 1
    fi
    sleep 5
  done
done
