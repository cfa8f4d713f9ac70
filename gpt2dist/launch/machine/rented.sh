#!/usr/bin/env bash
# rented.sh 'CMD...': run CMD on a rented machine, for no longer than the budget lasts.
#
# CMD is one simple command in shell syntax. It is expanded here, so it can use what this script
# sets: RUN_BUDGET_USD, of a run or sweep that accounts for the machine from its boot on; and the
# array `overrides`.
#
# The task's envs
#   RUN            name of the run's folder; it goes on from BUCKET if it is there
#   SWEEP          file of a sweep, which names its folder itself
#   BUDGET_USD     of all machines, from boot to teardown
#   USD_PER_HOUR   of one machine: 1.39, or by provider: "runpod=1.39 gcp=3.67"
#   BUCKET         where runs are copied to: s3://..., gs://... or a mounted folder; may be empty
#   DATA           prepared shards to fetch: s3://..., gs://... or a folder; may be empty
#   OVERRIDES      more settings of the run, quoted as for a shell: train.tokens=2.5e9
#   GRACE_S        between SIGTERM at the deadline and SIGKILL; 300
#   UPLOAD_S       for the last upload after that; 600
#   STALL_S        seconds without a row or a shard after which the run has stalled, at least: it is
#                  ten times the longest wait between two rows where that is more; 1800, 0: never
#   SHARE          nfs: rank 0's runs/ and data/ appear on every node
#
# Exit code: CMD's; 124 or 137 when it was ended at the deadline; 2 when the budget is spent. A run
# that stalled is told to stop: 143 when it could still save, 137 when not.
set -euo pipefail
[ $# = 1 ] || { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
rank=${SKYPILOT_NODE_RANK:-0}
export PATH=${GPT2DIST_VENV:-$HOME/gpt2dist-venv}/bin:$PATH
mkdir -p runs data

# A secret that was not given is empty; to most programs that is not the same as unset.
for name in HF_TOKEN MLFLOW_TRACKING_URI MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD \
  AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_ENDPOINT_URL; do
  [ -n "${!name:-}" ] || unset "$name"
done

source gpt2dist/launch/machine/deadline.sh
mirror='' stall='' ends=0

unshare_folders() {
  [ "${SHARE:-}" = nfs ] || return 0
  timeout 60 bash gpt2dist/launch/machine/share_nfs.sh --end runs data ||
    echo "rented: runs/ and data/ are still shared over NFS" >&2
}
trap unshare_folders EXIT

finish() {
  local code=$?
  trap '' TERM INT HUP
  [ -z "$stall" ] || kill "$stall" 2>/dev/null || true
  if [ -n "$mirror" ]; then
    kill "$mirror" 2>/dev/null || true
    # A run that ended early leaves its time to the upload; 0 is no limit: the machine is free.
    local left=0
    if ((ends > 0)); then left=$((ends > SECONDS ? ends - SECONDS : 1)); fi
    timeout --kill-after=5 "$left" python -m gpt2dist.launch.machine.mirror push "$BUCKET" runs ||
      echo "rented: the last upload to $BUCKET failed" >&2
  fi
  unshare_folders
  mkdir -p "$HOME/.gpt2dist"
  date +%s >"$HOME/.gpt2dist/accounted_until" # the next run here is not charged for this one
  exit "$code"
}

# ---- what earlier machines left, and what may still be spent ------------------------------------
if [ "${SHARE:-}" = nfs ]; then timeout 900 bash gpt2dist/launch/machine/share_nfs.sh runs data; fi
eval "overrides=(${OVERRIDES:-})"
if [ -n "${SWEEP:-}" ]; then
  RUN=$(python -m gpt2dist.sweep.print_folder "$SWEEP" "${overrides[@]}")
  export RUN
fi
if [ -n "${BUCKET:-}" ] && [ "$rank" = 0 ]; then
  timeout 120 python -m gpt2dist.launch.machine.mirror check "$BUCKET" # now, not when there is work to lose
  if [ -n "${RUN:-}" ]; then
    timeout 1800 python -m gpt2dist.launch.machine.mirror pull "$BUCKET" runs "$RUN"
  fi
fi
counted=$SECONDS
account=$(python -m gpt2dist.launch.machine.allot)
eval "$account"
echo "rented: \$$SPENT_USD of \$$BUDGET_USD spent; the run may spend \$$RUN_BUDGET_USD and is" \
  "ended after ${DEADLINE_S} s (0: never)"
if ((DEADLINE_S > 0)); then ends=$((counted + DEADLINE_S + ${GRACE_S%.*} + ${UPLOAD_S%.*})); fi
trap finish EXIT

if [ -n "${DATA:-}" ]; then
  if [ "$rank" = 0 ]; then
    timeout "$DEADLINE_S" python -m gpt2dist.launch.machine.mirror copy "$DATA" data/shards
  fi
  overrides+=(paths.dataset=data/shards)
fi
eval "command=($1)"

# ---- the run ------------------------------------------------------------------------------------
if [ -n "${BUCKET:-}" ] && [ "$rank" = 0 ]; then
  python -m gpt2dist.launch.machine.mirror push "$BUCKET" runs --every 60 &
  mirror=$!
fi
if ((DEADLINE_S > 0)); then
  DEADLINE_S=$((DEADLINE_S - (SECONDS - counted))) # fetching the shards took its share
  ((DEADLINE_S > 0)) || { echo "rented: the budget was spent on fetching $DATA" >&2; exit 2; }
fi
export RAY_CLUSTER_GRACE_S=${GRACE_S%.*}
# Rank 0 fetches runs and shards first; the others wait for it that long.
if [ "$rank" != 0 ]; then export RAY_CLUSTER_WAIT_S=${RAY_CLUSTER_WAIT_S:-3600}; fi
if [ "$rank" = 0 ] && [ "${STALL_S:=1800}" != 0 ]; then
  python -m gpt2dist.launch.machine.stall $$ "$STALL_S" &
  stall=$!
fi
within "$DEADLINE_S" "$GRACE_S" "${command[@]}"
