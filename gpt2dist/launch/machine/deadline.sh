# shellcheck shell=bash
# deadline.sh: sourced; defines `within`, which runs a command and leaves nothing of it behind.

# within SECONDS GRACE_SECONDS CMD...
#
# SIGTERM after SECONDS (0: never), SIGKILL GRACE_SECONDS later. A TERM, INT or HUP that this shell
# gets meanwhile becomes a SIGTERM for CMD. Returns CMD's exit code, or 124 / 137 at the deadline.
#
# CMD gets a session of its own. What it started may sit in other process groups, ignore SIGTERM and
# hold the output open, by which SkyPilot would take the job for running and the machine for busy:
# when CMD has ended, whatever is left in the session is killed, and seen to be gone: a kill returns
# before the killed have let go of their files (zombies have). What the kernel cannot end in 10 s is left to it.
within() {
  local seconds=$1 grace=$2 code=0
  shift 2
  setsid timeout --signal=TERM --kill-after="$grace" "$seconds" "$@" </dev/null &
  local session=$!
  # shellcheck disable=SC2064 # this session, not a later one
  trap "kill -TERM $session 2>/dev/null || true" TERM INT HUP
  wait "$session" || code=$?
  while kill -0 "$session" 2>/dev/null; do # a signal ends the wait, not the command
    code=0
    wait "$session" || code=$?
  done
  local tries=0 alive='!/^Z/ { alive = 1 } END { exit !alive }'
  while ((tries++ < 100)) && ps -o stat= --sid "$session" | awk "$alive"; do
    pkill -KILL --session "$session" || true
    sleep 0.1
  done
  trap - TERM INT HUP # not before: the upload that follows must not be lost to a second signal
  return "$code"
}
