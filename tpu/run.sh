#!/usr/bin/env bash
# Starts the trainer on every worker of a TPU; it goes on when the connection ends.
set -euo pipefail

help="Starts python -m phi1_jax.train on every worker of a TPU, detached.

  tpu/run.sh --name=phi1 --zone=us-east5-b --workdir=gs://my-phi1-runs/pretrain \\
    -- --gin_file=gin/pretrain.gin

  --name NAME        of the TPU
  --zone ZONE        where it stands
  --project PROJECT  (default: gcloud's)
  --workdir FOLDER   where the run lives: gs://, or on a file system that all workers share
  --dry_run          print the commands, run nothing
  -- ARGUMENT...     of python -m phi1_jax.train
  --type, --version and --spot are accepted, as by every script here, and not needed"
workdir=''
# shellcheck source-path=SCRIPTDIR source=arguments.sh
. "$(dirname "$0")/arguments.sh"
parse_flags '--workdir' '' "$@"
require_run

on_workers all 'bash phi1_jax/tpu/worker.sh busy' # 2 if one is: none is started twice
ask_addresses
on_workers all "bash phi1_jax/tpu/worker.sh start $(
  quote "$addresses" "$workdir" "${arguments[@]}"
)"
