#!/usr/bin/env bash
# share_nfs.sh FOLDER...: rank 0's folders appear at the same path on every node of a task.
#
# Every rank writes its share of a checkpoint, so the nodes need one folder. Cloud machines have
# none; rank 0 lends its disk over NFS to the addresses of the other nodes and to nobody else.
set -euo pipefail
mapfile -t ips <<<"$SKYPILOT_NODE_IPS"
((${#ips[@]} > 1)) || exit 0
if [ "$SKYPILOT_NODE_RANK" = 0 ]; then
  sudo apt-get install --yes --quiet nfs-kernel-server >/dev/null
  for folder in "$@"; do
    mkdir -p "$folder"
    line=$(realpath "$folder")
    for ip in "${ips[@]:1}"; do line+=" $ip(rw,sync,no_subtree_check,no_root_squash)"; done
    echo "$line" | sudo tee -a /etc/exports >/dev/null
  done
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
