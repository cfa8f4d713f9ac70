#!/usr/bin/env bash
# ray_cluster.sh CMD...
#
# Run it on EVERY node with the same CMD. The nodes become one Ray cluster, rank 0 runs CMD with
# RAY_ADDRESS set, and the cluster is taken down again. Rank 0 exits with CMD's exit code.
#
# The nodes are described by SkyPilot's variables, or else by plain ones:
#   SKYPILOT_NODE_RANK          NODE_RANK      0 .. NUM_NODES-1
#   SKYPILOT_NUM_NODES          NUM_NODES
#   SKYPILOT_NODE_IPS           NODE_IPS       one address or host name per line (or word), by rank
#   SKYPILOT_NUM_GPUS_PER_NODE  GPUS_PER_NODE  unset: what Ray finds
# With none of them this machine is a cluster of one.
#
# Settings, each optional:
#   RAY_CLUSTER_PORT=6390     of rank 0; the three ports after it are taken as well
#   RAY_CLUSTER_WAIT_S=600    how long the nodes wait for each other
#   RAY_CLUSTER_GRACE_S=120   how long a node that is told to stop stays, while rank 0 saves
#   RAY_CLUSTER_CPUS          CPUs that each node offers; unset: its cores, at least 4
#   RAY_CLUSTER_TMP=/tmp      for Ray's sockets, logs and spilled objects; at most 32 letters
#   RAY_AUTH_TOKEN            a secret, the same on all nodes, that Ray then asks for
#
# SIGTERM and SIGINT go to CMD; Ray is taken down when CMD has ended.
# Exit codes: CMD's own; 1 nodes are missing or Ray failed; 2 bad variables.
set -euo pipefail
set -m # every child is a process group: Ctrl-C reaches CMD once, through this script

say() { echo "ray_cluster: $*" >&2; }
bad() { say "$*"; exit 2; }
fail() { say "$*"; exit 1; }

usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }
case ${1:-} in
  -h | --help) usage; exit 0 ;;
  '') usage >&2; exit 2 ;;
esac

# ---- who and where are we? ----------------------------------------------------------------------
rank=${SKYPILOT_NODE_RANK:-${NODE_RANK:-0}}
nodes=${SKYPILOT_NUM_NODES:-${NUM_NODES:-1}}
gpus=${SKYPILOT_NUM_GPUS_PER_NODE:-${GPUS_PER_NODE:-}}
names=${SKYPILOT_NODE_IPS:-${NODE_IPS:-}}
port=${RAY_CLUSTER_PORT:-6390}
wait_s=${RAY_CLUSTER_WAIT_S:-600}
grace_s=${RAY_CLUSTER_GRACE_S:-120}
cpus=${RAY_CLUSTER_CPUS:-}
tmp=${RAY_CLUSTER_TMP:-/tmp}

require_number() { # NAME VALUE
  [[ $2 =~ ^[0-9]{1,9}$ ]] || bad "$1='$2' is not a whole number"
}
require_number NODE_RANK "$rank"
require_number NUM_NODES "$nodes"
require_number RAY_CLUSTER_PORT "$port"
require_number RAY_CLUSTER_WAIT_S "$wait_s"
require_number RAY_CLUSTER_GRACE_S "$grace_s"
if [ -n "$gpus" ]; then require_number GPUS_PER_NODE "$gpus"; fi
if [ -n "$cpus" ]; then require_number RAY_CLUSTER_CPUS "$cpus"; fi
((nodes > 0)) || bad "NUM_NODES=0: there must be one node at least"
((rank < nodes)) || bad "NODE_RANK=$rank, but NUM_NODES=$nodes: ranks go from 0 to $((nodes - 1))"
# Ray adds some 60 bytes to it, and the path of a socket holds 107.
((${#tmp} <= 32)) || bad "RAY_CLUSTER_TMP=$tmp is longer than 32 letters"
((port >= 1024 && port <= 65532)) || bad "RAY_CLUSTER_PORT=$port is not within 1024 and 65532"
if ((nodes == 1)); then names=127.0.0.1; fi # whatever others call it
read -r -d '' -a ips <<<"$names" || true
((${#ips[@]} == nodes)) || bad "NODE_IPS names ${#ips[@]} nodes, but NUM_NODES=$nodes"

for tool in ray python3; do
  [ -n "$(type -P "$tool")" ] ||
    bad "there is no $tool on PATH: activate the environment that gpt2dist is installed in"
done
for tool in ps setpriv setsid; do
  [ -n "$(type -P "$tool")" ] || bad "there is no $tool on PATH: install procps and util-linux"
done

for i in "${!ips[@]}"; do
  if [[ ! ${ips[i]} =~ ^[0-9.]+$ ]]; then
    read -r address _ < <(getent ahostsv4 "${ips[i]}") || bad "NODE_IPS: ${ips[i]} has no address"
    ips[i]=$address
  fi
  if ((nodes > 1)) && [[ ${ips[i]} = 127.* ]]; then
    bad "NODE_IPS: rank $i is at ${ips[i]}, where other machines cannot reach it;" \
      "give its network address"
  fi
done
ip=${ips[rank]} head=${ips[0]}

# Gloo and NCCL otherwise listen at whatever the host name stands for, often 127.0.1.1.
if ((nodes > 1)); then
  interface=$(python3 -c '
import psutil, sys
for name, addresses in psutil.net_if_addrs().items():
    if any(each.address == sys.argv[1] for each in addresses):
        print(name)
        break' "$ip")
  [ -n "$interface" ] || bad "no network interface of $(hostname) has $ip, the address of rank $rank"
  export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-$interface}
  export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-$interface}
  options=(--node-ip-address="$ip")
else
  # Nobody else reaches this machine's Ray: 0 has it take 127.0.0.1 for its address.
  export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0
  export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-lo} NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-lo}
  options=(--node-ip-address=127.0.0.1)
fi

# Ray Data's tasks want CPUs beside those that the workers hold.
if [ -z "$cpus" ]; then
  cpus=$(env -u OMP_NUM_THREADS nproc)
  for least in 4 $((2 * ${gpus:-0})); do
    if ((cpus < least)); then cpus=$least; fi
  done
fi

# ---- Ray on this node ---------------------------------------------------------------------------
unset RAY_ADDRESS # `ray start` would take it for the cluster to join
export RAY_USAGE_STATS_ENABLED=0
# How soon processes give up a head that has gone; Ray's own is a minute.
export RAY_gcs_rpc_server_reconnect_timeout_s=${RAY_gcs_rpc_server_reconnect_timeout_s:-10}

# Whoever has the token may run code here. Left alone, a head takes the token of its user's last
# Ray, which the other nodes lack.
if [ -z "${RAY_AUTH_MODE:-}" ]; then
  if ((nodes == 1)) && [ -z "${RAY_AUTH_TOKEN:-}" ]; then
    RAY_AUTH_TOKEN=$(od -An -tx1 -N16 /dev/urandom | tr -d ' \n')
    export RAY_AUTH_TOKEN
  fi
  export RAY_AUTH_MODE=disabled
  if [ -n "${RAY_AUTH_TOKEN:-}" ]; then RAY_AUTH_MODE=token; fi
fi

# A folder of its own: in /tmp/ray this cluster would become what another one's `auto` finds.
folder=$(mktemp -d "$tmp/raycl.XXXXXX") || bad "RAY_CLUSTER_TMP=$tmp cannot be written"
log=$folder/ray_start.log
options+=(
  --num-cpus="$cpus" --temp-dir="$folder" --disable-usage-stats
  --min-worker-port=0 --max-worker-port=0 # any free ones: fixed ranges collide with other Rays
  --dashboard-agent-listen-port=$((port + 3))
  --block # one process that stands for Ray on this node
)
if [ -n "$gpus" ]; then options+=(--num-gpus="$gpus"); fi

ray_pid='' guard_pid='' command_pid='' waiter_pid='' signal=''

start_ray() {
  set +m # or setsid would fork
  # A session of its own, by which all that Ray starts here can be found.
  setsid ray start "$@" "${options[@]}" </dev/null >>"$log" 2>&1 &
  ray_pid=$!
  # Should this script be killed outright, nothing of Ray stays.
  # shellcheck disable=SC2016  # it is a script for another shell
  setsid bash -c '
    exec {never}<> <(:)
    while kill -0 "$1"; do read -r -t 1 -u "$never"; done
    kill -KILL $(ps -o pid= -s "$2")' _ "$$" "$ray_pid" </dev/null >/dev/null 2>&1 &
  guard_pid=$!
  disown "$guard_pid" # nobody waits for it
  set -m
}

# shellcheck disable=SC2317  # called by the trap
family() { # pids of all that Ray started on this node
  if [ -n "$ray_pid" ]; then ps -o pid= -s "$ray_pid" || true; fi
}

alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }

# Nothing of Ray outlives the command, so that it needs no time to say goodbye.
# shellcheck disable=SC2317  # called by the trap
stop_ray() {
  local code=$? deadline=$((SECONDS + 3))
  trap '' TERM INT HUP
  { # bash would report who was killed
    if alive "$waiter_pid"; then kill -KILL "$waiter_pid"; fi
    if alive "$ray_pid"; then kill "$ray_pid"; fi
    while [ -n "$(family)" ]; do
      # shellcheck disable=SC2046  # one word per process
      if ((SECONDS >= deadline)); then kill -KILL $(family) || true; fi
      sleep 0.2
    done
    if alive "$guard_pid"; then kill -KILL "$guard_pid"; fi
    wait
  } 2>/dev/null
  case $code in
    0 | 130 | 143) rm -rf "$folder" ;;
    *) say "rank $rank: Ray's logs stay in $folder" ;;
  esac
}
trap stop_ray EXIT

on_signal() {
  signal=$1
  if alive "$command_pid"; then kill -s "$signal" "$command_pid"; fi
  if alive "$waiter_pid"; then kill -KILL "$waiter_pid"; fi
}
trap 'on_signal TERM' TERM HUP
trap 'on_signal INT' INT
signal_code() { if [ "$signal" = INT ]; then echo 130; else echo 143; fi; }

listens() { timeout 3 bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null; }

show_log() { tail -n 30 "$log" | sed 's/^/    /' >&2; }

# ---- every other rank: join, stay until the head leaves -----------------------------------------
serve() {
  local deadline=$((SECONDS + wait_s)) leave_at='' misses=0
  until listens "$head" "$port"; do
    if [ -n "$signal" ]; then exit "$(signal_code)"; fi
    if ((SECONDS >= deadline)); then
      fail "rank $rank ($ip): no Ray head at $head:$port after $wait_s s"
    fi
    sleep 0.5
  done
  start_ray --address="$head:$port"
  while ((misses < 3)); do
    # Told to stop? Rank 0 has been told as well, and needs this node until it has saved.
    if [ -n "$signal" ] && [ -z "$leave_at" ]; then leave_at=$((SECONDS + grace_s)); fi
    if [ -n "$leave_at" ] && ((SECONDS >= leave_at)); then exit "$(signal_code)"; fi
    sleep 1
    if ! listens "$head" "$port"; then
      misses=$((misses + 1))
    elif alive "$ray_pid"; then
      misses=0
    else
      say "rank $rank ($ip): Ray ended here while the head at $head lives; the end of its log:"
      show_log
      exit 1
    fi
  done
  say "rank $rank ($ip): the head has left"
  exit 0 # the verdict is rank 0's
}

# ---- rank 0: the head; wait for everybody; run the command --------------------------------------
wait_for_nodes='
import os, sys, time
import ray
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
seconds, wanted = float(sys.argv[1]), sys.argv[2:]
deadline = time.monotonic() + seconds
while len(wanted) > 1:
    there = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    missing = [f"{ip} (rank {rank})" for rank, ip in enumerate(wanted) if ip not in there]
    if not missing:
        break
    if time.monotonic() > deadline:
        sys.exit(f"ray_cluster: {len(missing)} of {len(wanted)} nodes missing "
                 f"after {seconds:g} s: " + ", ".join(missing))
    time.sleep(0.5)
'

lead() {
  local code=0
  if listens "$head" "$port"; then
    fail "port $port of $head is taken; choose another RAY_CLUSTER_PORT"
  fi
  options+=(--dashboard-host=127.0.0.1 --dashboard-port=$((port + 1)))
  if python3 -c 'import grpc' 2>/dev/null; then # ray[client]: its server starts wherever it can
    options+=(--ray-client-server-port=$((port + 2)))
  fi
  start_ray --head --port="$port"
  export RAY_ADDRESS=$head:$port
  python3 -c "$wait_for_nodes" "$wait_s" "${ips[@]}" </dev/null &
  waiter_pid=$!
  wait -n "$waiter_pid" "$ray_pid" || code=$?
  if [ -n "$signal" ]; then exit "$(signal_code)"; fi
  if ! alive "$ray_pid"; then
    say "rank 0 ($ip): Ray did not start; the end of its log:"
    show_log
    exit 1
  fi
  if ((code != 0)); then exit 1; fi
  say "$nodes of $nodes nodes are up at $RAY_ADDRESS"

  setpriv --pdeathsig TERM "$@" &
  command_pid=$!
  if [ -n "$signal" ]; then on_signal "$signal"; fi # it came in between
  while alive "$command_pid"; do
    code=0
    wait -n "$command_pid" "$ray_pid" || code=$?
    if ! alive "$ray_pid" && alive "$command_pid"; then
      say "rank 0 ($ip): Ray ended before the command; the end of its log:"
      show_log
      end_command
      exit 1
    fi
  done
  code=0
  wait "$command_pid" || code=$?
  exit "$code"
}

end_command() {
  local deadline=$((SECONDS + grace_s))
  kill "$command_pid" || true
  while alive "$command_pid"; do
    if ((SECONDS >= deadline)); then kill -KILL "$command_pid"; fi
    sleep 0.5
  done
}

if ((rank == 0)); then lead "$@"; else serve; fi
