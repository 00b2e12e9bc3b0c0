#!/usr/bin/env bash
# Puts this repository and its environment onto every worker of a TPU.
#
# Runs on your machine. It copies the last commit and leaves what a worker has beside
# it (token stores, for one) alone, so it can be repeated; not while a run is on.
set -euo pipefail

help="Puts this repository and its environment onto every worker of a TPU.

  tpu/setup_host.sh --name=phi1 --zone=us-east5-b

  --name NAME        of the TPU
  --zone ZONE        where it stands
  --project PROJECT  (default: gcloud's)
  --mount COMMAND    what every worker runs first, to mount the shared file system
  --dry_run          print the commands, run nothing
  --type, --version and --spot are accepted, as by every script here, and not needed"
mount=''
# shellcheck source-path=SCRIPTDIR source=arguments.sh
. "$(dirname "$0")/arguments.sh"
parse_flags '--mount' '' "$@"

root=$(dirname "$here")
git_folder=$(git -C "$root" rev-parse --absolute-git-dir 2>/dev/null) \
  || refuse "$root is not a git clone, and what it tracks is what is copied"
git -C "$root" diff --quiet HEAD \
  || printf 'note: changes that are not committed are not copied\n' >&2

archive=$git_folder/phi1_jax.tar.gz
run git -C "$root" archive --format=tar.gz "--output=$archive" HEAD
run gcloud compute tpus tpu-vm scp "$archive" "$name:" "${where[@]}" --worker=all
# Folders of the archive are emptied before, so that no module outlives its deletion.
on_workers all 'mkdir -p phi1_jax && tar -xzf phi1_jax.tar.gz -C phi1_jax --recursive-unlink'
[ -z "$mount" ] || on_workers all "$mount"
on_workers all 'bash phi1_jax/tpu/worker.sh install'
# Only after every worker is installed: they wait for each other.
ask_addresses
on_workers all "bash phi1_jax/tpu/worker.sh check $(quote "$addresses")"
