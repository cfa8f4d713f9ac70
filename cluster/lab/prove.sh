#!/usr/bin/env bash
# prove.sh [DIR]: on a Slurm "cloud" of two nodes, made of this machine, really launch
#   1. a file of sky/ over both nodes, which trains the debug recipe to its end;
#   2. the same with a dollar budget, which stops it cleanly and in time;
#   3. a managed job, whose machines are taken away in mid-run: it recovers from the bucket;
#   4. cluster/slurm.sbatch, told to stop: it saves, queues again and goes on.
# Needs Linux, root and what docs/cluster.md lists; 15 to 30 minutes on two cores. Without DIR the
# lab lives in a temporary folder and is deleted at the end.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

purge=()
if [ $# -eq 0 ]; then
  set -- "$(mktemp -d /tmp/gpt2dist-lab.XXXXXX)"
  purge=(--purge)
fi
use_dir "$1"
trap '"$LAB/down.sh" "$DIR" "${purge[@]}"' EXIT
"$LAB/up.sh" "$DIR"
eval "$("$LAB/env.sh" "$DIR")"
cd "$REPO"

venv=$DIR/venv bucket=$DIR/slurmhome/bucket log=$DIR/log/prove.log
small="cluster.device=cpu cluster.cpu_workers=2 zero.stage=1 model.layers=2 model.heads=2
  model.width=64 model.context=128 model.vocab=257 data.tokenizer=bytes data.max_documents=300
  train.batch_tokens=4096 eval.tokens=8192 eval.every_steps=500 eval.sample_every_steps=null
  checkpoint.every_steps=20 track.every_steps=1"

told() { # what the log ends with, when something went wrong
  tail -n 40 "$log" >&2
  die "$*"
}

wait_for() { # SECONDS WHAT CMD...: until CMD succeeds
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    ((SECONDS < deadline)) || told "waited in vain for $what"
    sleep 3
  done
}

check() { python3 "$LAB/check.py" "$@"; }
newest() { find "$DIR/slurmhome/.sky_clusters" -path "*/runs/$1" -type d -print -quit; }
finished() { grep -qs '"ended": "finished"' "$1/summary.json"; }
no_jobs() { [ -z "$(in_node login squeue --noheader)" ]; }

launch() { # NAME BUDGET_USD USD_PER_HOUR OVERRIDE
  sky launch -y -c lab sky/a100x8x2_1558m.yaml --infra slurm/lab --gpus A100:1 --cpus 2 --memory 4 \
    --env RECIPE=debug --env RUN="$1" --env BUDGET_USD="$2" --env USD_PER_HOUR="$3" \
    --env SHARE= --env GRACE_S=300 --env GPT2DIST_VENV="$venv" --env OVERRIDES="$small $4" >"$log" 2>&1 ||
    told "sky launch failed"
}

echo "1. sky launch over two nodes"
launch launched 100 1 train.tokens=122880
check "$(newest launched)" ended=finished steps=30 workers=2 machines=2 zero_stage=1

echo "2. a budget of dollars"
# Two machines at $360 per hour burn $0.20 a second. Of the $232, $192 are kept for ending the run
# and giving the machines back (16 minutes: there is no bucket); the run itself has $40.
launch budgeted 232 360 train.tokens=1e9
check "$(newest budgeted)" ended=budget machines=2 "usd<=40"
sky down -y lab >"$log" 2>&1 || told "sky down failed"
wait_for 60 "an empty queue" no_jobs

echo "3. a managed job loses its machines"
install -d -o "$NODE_UID" -g "$NODE_UID" "$bucket"
sky jobs launch -y -d cluster/lab/managed_job.yaml --env BUCKET="$bucket" \
  --env GPT2DIST_VENV="$venv" --env OVERRIDES="$small train.tokens=6144000" >"$log" 2>&1 ||
  told "sky jobs launch failed"
saved() { compgen -G "$bucket/managed/checkpoints/step-*/state.json" >/dev/null; }
wait_for 600 "a checkpoint in the bucket" saved
in_node login scancel "$(in_node login squeue --noheader --format=%i)"
wait_for 900 "the end of the recovered job" finished "$bucket/managed"
grep -q 'continuing from step' "$bucket/managed/events.jsonl" || told "it began anew"
wait_for 120 "an empty queue" no_jobs
check "$bucket/managed" ended=finished steps=1500 attempts=2 machines=2

echo "4. sbatch, told to stop"
runs=$DIR/slurmhome/runs
read -r -d '' -a settings <<<"$small" || true
in_node login env -C "$REPO" GPT2DIST_BIN="$venv/bin" SLURM_CONF="$SLURM_CONF" \
  sbatch --time=30 --nodes=2 --gpus-per-node=1 --cpus-per-task=2 --mem=4000 --output="$log" \
  cluster/slurm.sbatch gpt2dist train debug --name slurm "${settings[@]}" train.tokens=2457600 \
  paths.runs="$runs" paths.data="$DIR/slurmhome/data" track.mlflow=false
wait_for 300 "the first rows" test -s "$runs/slurm/metrics.jsonl"
in_node login scancel --signal=TERM --batch "$(in_node login squeue --noheader --format=%i)"
wait_for 600 "the end of the job that was queued again" finished "$runs/slurm"
check "$runs/slurm" ended=finished steps=600 attempts=2 machines=2
wait_for 60 "an empty queue" no_jobs
echo "all four proved"
