#!/usr/bin/env bash
# up.sh DIR: a Slurm "cloud" on this machine: a login node and two compute nodes with one fake A100
# each (/dev/null). A node is a set of kernel namespaces (network, processes, host name, mounts).
# They share one bridge inside the login node's network, so nothing in here has a way out.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || die "must be root (namespaces)"
use_dir "${1:-}"
mkdir -p "$DIR"

if node_pid login >/dev/null && node_pid n0 >/dev/null && node_pid n1 >/dev/null; then
  echo "already up: $DIR"; exit 0
fi
"$LAB/down.sh" "$DIR" # leftovers of an interrupted start

for tool in slurmctld slurmd munged ssh-keygen rsync ip nsenter unshare setpriv; do
  command -v "$tool" >/dev/null || [ -x "/usr/sbin/$tool" ] ||
    die "$tool not found: see docs/cluster.md"
done
[ -x /usr/sbin/sshd ] || die "sshd not found: see docs/cluster.md"
SKY=${SKY_BIN:-$(command -v sky || true)}; UV=${UV_BIN:-$(command -v uv || true)}
[ -x "$SKY" ] || die "no sky executable: activate its virtual environment or set SKY_BIN"
[ -x "$UV" ] || die "no uv executable: pip install uv, or set UV_BIN"
[ -x "$JOB_PYTHON" ] || die "no $JOB_PYTHON: run 'make install', or set LAB_JOB_PYTHON"
job_prefix=$("$JOB_PYTHON" -c 'import sys; print(sys.base_prefix)')

# ---- files under DIR ----------------------------------------------------------------------------
chmod 755 "$DIR"
mkdir -p "$DIR"/{bin,etc,log,state,munge,ssh,nodes,home/.slurm,home/.sky,slurmhome/.ssh,uvcache}
chmod 755 "$DIR/munge"

render() { sed -e "s#@DIR@#$DIR#g" -e "s#@USER@#$NODE_USER#g" "$LAB/templates/$1" > "$2"; }
render slurm.conf.in  "$DIR/etc/slurm.conf"
render gres.conf.in   "$DIR/etc/gres.conf"
render sshd_config.in "$DIR/etc/sshd_config"
render uv.toml.in     "$DIR/etc/uv.toml"
render ssh_config.in  "$DIR/home/.slurm/config"
render prolog.sh.in   "$DIR/etc/prolog.sh"; chmod 755 "$DIR/etc/prolog.sh"
config=$DIR/home/.sky/config.yaml
[ -f "$config" ] || cp "$LAB/templates/sky_config.yaml" "$config"

# `accelerators: A100:1` is looked up in SkyPilot's catalog, which it would otherwise download.
catalog=$DIR/home/.sky/catalogs/v8/common
mkdir -p "$catalog"
printf 'AcceleratorName,Clouds\nA100,"[]"\n' >"$catalog/accelerators.csv"
printf 'GPU,MemoryGB,Manufacturer\nA100,40,nvidia\n' >"$catalog/metadata.csv"

# The API server asks PyPI for its latest release once a day unless this note is fresh. It is here.
version=$("$SKY" --version | sed 's/.* //')
printf '{"release_version": "%s", "cached_at": 4102444800}\n' "$version" \
  >"$DIR/home/.sky/version_cache.json"
# Node and SSH facts are cached up to 24 h; they belong to the previous cluster.
rm -f "$DIR"/home/.sky/kv_cache.db*

# What the setup of a task finds already done: the packages of JOB_PYTHON, with the lock's stamp.
# (Nothing can be fetched from inside the lab.)
lock=$(cat "$REPO/constraints.txt" "$REPO/pyproject.toml" | sha256sum)
mkdir -p "$DIR/venv"
job_venv=$(cd "$(dirname "$JOB_PYTHON")/.." && pwd)
ln -sfn "$job_venv"/{bin,lib,pyvenv.cfg} "$DIR/venv/"
touch "$DIR/venv/.installed-${lock:0:16}" "$DIR/venv.lock"
chmod 666 "$DIR/venv.lock"

# The unprivileged user exists in a private copy of passwd and group that only the nodes see.
grep -v "^$NODE_USER:" /etc/passwd >"$DIR/etc/passwd"
echo "$NODE_USER:x:$NODE_UID:$NODE_UID::$DIR/slurmhome:/bin/bash" >>"$DIR/etc/passwd"
grep -v "^$NODE_USER:" /etc/group >"$DIR/etc/group"
echo "$NODE_USER:x:$NODE_UID:" >>"$DIR/etc/group"
printf '127.0.0.1 localhost\n10.77.0.1 login\n10.77.0.10 n0\n10.77.0.11 n1\n' > "$DIR/etc/hosts"

[ -f "$DIR/munge/key" ] || (umask 077; head -c 1024 /dev/urandom > "$DIR/munge/key")
for key in host_ed25519 id_slurm; do
  [ -f "$DIR/ssh/$key" ] || ssh-keygen -q -t ed25519 -N '' -C "$key" -f "$DIR/ssh/$key"
done
cp -n /etc/skel/.[a-z]* "$DIR/slurmhome/" 2>/dev/null || true
install -m 600 "$DIR/ssh/id_slurm.pub" "$DIR/slurmhome/.ssh/authorized_keys"
chmod 700 "$DIR/slurmhome/.ssh"
install -m 755 "$UV" "$DIR/bin/uv"
chown -R "$NODE_UID:$NODE_UID" "$DIR/slurmhome" "$DIR/uvcache"
setpriv --reuid="$NODE_UID" --regid="$NODE_UID" --clear-groups test -r "$DIR/etc/slurm.conf" ||
  die "uid $NODE_UID cannot read $DIR: choose a DIR whose parents are open to others"

# For the caller: in_login, in_n0, in_n1 and sky (= in_login sky). env.sh puts them on PATH.
for node in login "${NODES[@]}"; do
  here=/
  if [ "$node" = login ]; then here="\$PWD"; fi # the only node that sees the caller's folders
  cat >"$DIR/bin/in_$node" <<WRAP
#!/usr/bin/env bash
. "$LAB/lib.sh"; use_dir "$DIR"
in_node $node env -C "$here" SLURM_CONF="$DIR/etc/slurm.conf" "\$@"
WRAP
done
cat >"$DIR/bin/sky" <<WRAP
#!/usr/bin/env bash
eval "\$("$LAB/env.sh" "$DIR")"
exec "$DIR/bin/in_login" "$SKY" "\$@"
WRAP
chmod 755 "$DIR"/bin/*

"$LAB/prefill.sh" "$DIR"

# ---- nodes --------------------------------------------------------------------------------------
start_node() { # start_node NAME login|compute
  local name=$1 home="$DIR/nodes/$1"
  rm -rf "$home"
  mkdir -p "$home/spool" "$home/tmp"
  chmod 1777 "$home/tmp"
  {
    echo "set -e; mount --make-rprivate /; hostname $name"
    echo "for f in passwd group hosts; do mount --bind $DIR/etc/\$f /etc/\$f; done"
    if [ "$2" = compute ]; then
      # SkyPilot forces UV_CACHE_DIR=/tmp/uv_cache_<uid> on Slurm nodes: make that the shared cache.
      ln -s "$DIR/uvcache" "$home/tmp/uv_cache_$NODE_UID"
      for folder in "$DIR" "$REPO"; do # what must stay visible below the node's own /tmp
        if [[ $folder = /tmp/* ]]; then
          mkdir -p "$home$folder"
          echo "mount --bind $folder $home$folder"
        fi
      done
      if [[ $job_prefix = /root/* ]]; then # a Python that only root could read
        mkdir -p "$home/python"
        echo "mount --bind $job_prefix $home/python; mount -t tmpfs -o mode=755 tmpfs /root"
        echo "mkdir -p $job_prefix; mount --bind $home/python $job_prefix"
      fi
      echo "mount --rbind $home/tmp /tmp; mount -t tmpfs -o size=8g tmpfs /dev/shm"
    fi
    echo "touch $home/ready"
    echo 'exec bash -c "trap \"exit 0\" TERM; while :; do sleep 5 & wait \$!; done"'
  } >"$home/boot.sh"
  # Not `ip netns exec`: it remounts /sys and hides /sys/fs/cgroup from slurmd.
  setsid nsenter --net="/run/netns/$ID-$name" \
    unshare --mount --uts --pid --fork --mount-proc --kill-child \
    bash "$home/boot.sh" </dev/null >"$home/boot.log" 2>&1 &
  local outer=$! pid=''
  for _ in $(seq 100); do
    pid=$(ps --ppid "$outer" -o pid= | tr -d ' ') && [ -n "$pid" ] && [ -e "$home/ready" ] && break
    sleep 0.1
  done
  if [ -z "$pid" ] || [ ! -e "$home/ready" ]; then
    die "node $name did not boot: $(cat "$home/boot.log")"
  fi
  echo "$pid $(start_time "$pid")" >"$home/pid"
}

ip netns add "$ID-login"
ip -n "$ID-login" link set lo up
ip -n "$ID-login" link add br0 type bridge
ip -n "$ID-login" addr add 10.77.0.1/24 dev br0
ip -n "$ID-login" link set br0 up
i=0
for node in "${NODES[@]}"; do
  ip netns add "$ID-$node"
  ip -n "$ID-login" link add "v$node" type veth peer name eth0 netns "$ID-$node"
  ip -n "$ID-login" link set "v$node" master br0 up
  ip -n "$ID-$node" link set lo up
  ip -n "$ID-$node" addr add "10.77.0.1$i/24" dev eth0
  ip -n "$ID-$node" link set eth0 up
  i=$((i + 1))
done

start_node login login
export SLURM_CONF="$DIR/etc/slurm.conf"
rm -rf "$DIR"/state/*
mkdir -p /run/sshd
in_node login munged --force --socket="$DIR/munge/munge.sock" --key-file="$DIR/munge/key" \
  --pid-file="$DIR/munge/pid" --log-file="$DIR/log/munged.log" --seed-file="$DIR/munge/seed"
in_node login /usr/sbin/sshd -f "$DIR/etc/sshd_config" -E "$DIR/log/sshd.log"
in_node login slurmctld
for node in "${NODES[@]}"; do
  start_node "$node" compute
  in_node "$node" slurmd -N "$node"
done

for _ in $(seq 30); do
  [ "$(in_node login sinfo -h -o %t 2>/dev/null | sort -u)" = idle ] && break
  sleep 1
done
in_node login sinfo -o '%P %D %t %c %m %G'
[ "$(in_node login sinfo -h -o %t | sort -u)" = idle ] ||
  die "the nodes are not idle: see $DIR/log and $DIR/nodes/*/slurmd.log"
echo "up: $DIR"
echo "next: eval \"\$($LAB/env.sh $DIR)\"; sky check slurm"
