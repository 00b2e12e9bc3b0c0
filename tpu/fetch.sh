#!/usr/bin/env bash
# Copies what a run has left in its work directory to this machine.
set -euo pipefail

help="Copies a run's metrics, config, tokenizer, plot and summary to this machine.

  tpu/fetch.sh --name=phi1 --zone=us-east5-b --workdir=gs://my-phi1-runs/pretrain

  --name NAME        of the TPU
  --zone ZONE        where it stands
  --project PROJECT  (default: gcloud's)
  --workdir FOLDER   where the run lives, on the TPU or gs://
  --to FOLDER        here (default: runs/<last part of --workdir>)
  --checkpoints      the checkpoints, too: 17 GB each for phi-1
  --dry_run          print the commands, run nothing
  --type, --version and --spot are accepted, as by every script here, and not needed"
workdir='' to='' checkpoints=false
# shellcheck source-path=SCRIPTDIR source=arguments.sh
. "$(dirname "$0")/arguments.sh"
parse_flags '--workdir --to' '--checkpoints' "$@"
require --workdir
to=${to:-runs/$(basename "$workdir")}

run mkdir -p "$to"
if [[ $workdir == gs://* ]]; then
  run gcloud storage cp "$workdir/*.*" "$to/"
  if $checkpoints; then run gcloud storage cp --recursive "$workdir/checkpoints" "$to/"; fi
  exit
fi
# Files have a suffix and folders have none; plot and summary exist only at the end.
run gcloud compute tpus tpu-vm scp "$name:$workdir/*.*" "$to/" "${where[@]}" --worker=0
if $checkpoints; then
  run gcloud compute tpus tpu-vm scp "$name:$workdir/checkpoints" "$to/" \
    "${where[@]}" --worker=0 --recurse
fi
