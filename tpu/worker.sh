#!/usr/bin/env bash
# What happens on a worker itself; the other scripts call it there over ssh.
#
#   bash phi1_jax/tpu/worker.sh install                  the environment
#   bash phi1_jax/tpu/worker.sh check ADDRESSES          chips and the other workers
#   bash phi1_jax/tpu/worker.sh busy                     2 while a trainer runs
#   bash phi1_jax/tpu/worker.sh start ADDRESSES WORKDIR ARGUMENT...
#   bash phi1_jax/tpu/worker.sh status WORKDIR           worker 0 running 1200
#   bash phi1_jax/tpu/worker.sh log                      its last lines
#
# ADDRESSES are the workers' internal IPs, worker 0's first: 10.0.0.2;10.0.0.3
set -euo pipefail

repository=$(cd "$(dirname "$0")/.." && pwd)
python=$HOME/phi1_jax_environment/bin/python
# On the worker's own disk: log, exit_code, and the lock that a trainer holds.
state=$HOME/phi1_jax_run
# JAX's own choice of a port has changed (8476, then 8482), and the TPU network's
# firewall lets the new one not through everywhere: a start that hangs.
port=8476

# The number that libtpu knows this host by. No other will do: on a TPU,
# jax.process_index() is libtpu's, and the coordinator must know a process by the same.
# GKE sets TPU_WORKER_ID; on a TPU VM, JAX and libtpu ask the metadata server as well.
worker_index() {
  local attributes=http://metadata.google.internal/computeMetadata/v1/instance/attributes
  if [ -n "${TPU_WORKER_ID:-}" ]; then
    echo "$TPU_WORKER_ID"
  else
    curl -sSf --retry 5 -H 'Metadata-Flavor: Google' "$attributes/agent-worker-number"
  fi
}

install() {
  cd "$repository"
  "$python" -m pip --version >/dev/null 2>&1 || make_environment
  "$python" -m pip install --quiet -c constraints.txt -e '.[tpu]'
  echo "worker $index: installed, $("$python" --version)"
}

# A Python that is new enough and can make environments, or else uv's own 3.11: runtime
# versions stand on Ubuntu 22.04, whose Python is 3.10. Neither needs root.
make_environment() {
  local environment candidate
  environment=$(dirname "$(dirname "$python")")
  rm -rf "$environment"
  for candidate in python3.11 python3.12 python3.13 python3; do
    if "$candidate" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' \
      2>/dev/null; then
      "$candidate" -m venv "$environment"
      return
    fi
  done
  python3 -m pip install --quiet --user uv
  python3 -m uv venv --quiet --seed --python 3.11 "$environment"
}

# Sets `processes`: what tells a process its place among the others, nothing if alone.
place() {
  local hosts
  IFS=';' read -ra hosts <<<"$1"
  processes=()
  [ ${#hosts[@]} -eq 1 ] || processes=(
    "--coordinator_address=${hosts[0]}:$port"
    "--num_processes=${#hosts[@]}"
    "--process_id=$index"
  )
}

check() {
  place "$1"
  # JAX_PLATFORMS: without a TPU it would be content with the CPU.
  JAX_PLATFORMS=tpu timeout 600 "$python" -c '
import sys, jax
values = [flag.partition("=")[2] for flag in sys.argv[2:]]
if values:
  jax.distributed.initialize(values[0], int(values[1]), int(values[2]))
print(f"worker {sys.argv[1]}: {jax.local_device_count()} of {jax.device_count()}",
      jax.devices()[0].device_kind)
' "$index" ${processes[@]+"${processes[@]}"}
}

# Takes the lock --exclusive, as a trainer does, or --shared, as one does who looks.
# This process and its children hold it until they end. So a reboot or a killed trainer
# leaves nothing behind that looks like a running one.
take_lock() {
  mkdir -p "$state"
  exec 9>>"$state/lock"
  flock "$1" --nonblock 9
}

busy() {
  take_lock "${1:---shared}" && return
  echo "error: worker $index: a trainer is still running; see $state/log" >&2
  return 2
}

start() {
  busy --exclusive || return
  place "$1"
  rm -f "$state/exit_code"
  # A session of its own, and no stream of the connection's, which could not end.
  setsid bash "$0" train "${@:3}" --workdir="$2" ${processes[@]+"${processes[@]}"} \
    </dev/null >>"$state/log" 2>&1 &
  echo "worker $index: started; see $state/log"
}

# What `start` detaches: the trainer, and then its exit code in a file.
train() {
  local code=0
  trap : TERM INT # the trainer saves and ends; this must live to say how
  cd "$repository"
  echo "== $(date -u +%FT%TZ) python -m phi1_jax.train $*"
  PYTHONUNBUFFERED=1 "$python" -m phi1_jax.train "$@" || code=$?
  echo "$code" >"$state/exit_code.new"
  mv "$state/exit_code.new" "$state/exit_code"
}

# worker INDEX OUTCOME STEP: running, its exit code, or lost (ended without leaving one:
# the machine was restarted, or nothing was started); the newest checkpoint, or -1.
status() {
  local outcome=lost step=-1 folder
  if ! take_lock --shared; then
    outcome=running
  elif [ -f "$state/exit_code" ]; then
    outcome=$(cat "$state/exit_code")
  fi
  for folder in $(checkpoints "$1"); do
    if [[ $folder =~ ^[0-9]+$ ]] && [ "$folder" -gt "$step" ]; then step=$folder; fi
  done
  echo "worker $index $outcome $step"
}

# The names of the folders in a work directory's checkpoints; in a bucket, of those that
# were saved to the end.
checkpoints() {
  local path
  case $1 in
    gs://*)
      gcloud storage ls "$1/checkpoints/*/commit_success.txt" 2>/dev/null | while read -r path; do
        basename "$(dirname "$path")"
      done
      ;;
    *) ls "$1/checkpoints" 2>/dev/null ;;
  esac || true # none yet
}

log() {
  tail -n 20 "$state/log" | sed "s/^/worker $index: /"
}

index=$(worker_index)
"$@"
