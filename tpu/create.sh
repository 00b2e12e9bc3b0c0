#!/usr/bin/env bash
# Creates a TPU and waits until it is READY; one that is READY already is left alone.
set -euo pipefail

help="Creates a TPU and waits until it is READY.

  tpu/create.sh --name=phi1 --zone=us-east5-b --type=v6e-8 --spot

  --name NAME        of the TPU, and of its queued resource
  --zone ZONE        where it stands
  --project PROJECT  (default: gcloud's)
  --type TYPE        such as v4-8, v5litepod-16 (v5e), v5p-8, v6e-8
  --version VERSION  of the runtime (default: what goes with the type)
  --spot             cheaper, may be taken away at any time; waits in a queue
  --every SECONDS    between two looks at its state (default 30)
  --dry_run          print the commands, run nothing"
every=30
# shellcheck source-path=SCRIPTDIR source=arguments.sh
. "$(dirname "$0")/arguments.sh"

# Asks for the TPU; spot capacity through a queue, where the request waits its turn.
request() {
  local queue
  if ! $spot; then
    gcloud_tpu tpu-vm create "--accelerator-type=$type" "--version=$version"
    return
  fi
  queue=$(state_of queued-resources)
  case $queue in
    ABSENT | '') # '' in a dry run
      gcloud_tpu queued-resources create "--node-id=$name" \
        "--accelerator-type=$type" "--runtime-version=$version" --spot
      ;;
    FAILED | SUSPEND* | DELETING) give_up "$queue" ;;
    *) say "$name is in the queue already: $queue" ;;
  esac
}

give_up() {
  fail "$name is $1; delete it first: tpu/delete.sh --name=$name --zone=$zone"
}

wait_until_ready() {
  local state queue
  while true; do
    state=$(state_of tpu-vm)
    case $state in
      '') return ;; # a dry run
      READY)
        say "$name is READY"
        return
        ;;
      ABSENT)
        $spot || give_up "$state"
        queue=$(state_of queued-resources)
        case $queue in
          ABSENT | FAILED | SUSPEND*) give_up "$queue" ;;
        esac
        say "$name waits in the queue: $queue"
        ;;
      CREATING | STARTING | RESTARTING | REPAIRING) say "$name is $state" ;;
      *) give_up "$state" ;;
    esac
    sleep "$every"
  done
}

parse_flags '--every' '' "$@"
require --type
choose_version
state=$(state_of tpu-vm)
case $state in
  READY)
    say "$name is READY already; left alone"
    exit 0
    ;;
  ABSENT | '') request ;;
esac
wait_until_ready
