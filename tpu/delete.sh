#!/usr/bin/env bash
# Deletes a TPU and its queued resource; nothing there is fine, too.
set -euo pipefail

help="Deletes a TPU and its queued resource. What is only on its disks is lost.

  tpu/delete.sh --name=phi1 --zone=us-east5-b

  --name NAME        of the TPU
  --zone ZONE        where it stands
  --project PROJECT  (default: gcloud's)
  --yes              do not ask
  --dry_run          print the commands, run nothing; of the two that delete, only what
                     is there is deleted
  --type, --version and --spot are accepted, as by every script here, and not needed"
yes=false
# shellcheck source-path=SCRIPTDIR source=arguments.sh
. "$(dirname "$0")/arguments.sh"
parse_flags '' '--yes' "$@"

queue=$(state_of queued-resources)
state=$(state_of tpu-vm)
if [ "$queue$state" = ABSENTABSENT ]; then
  say "$name is not there; nothing to delete"
  exit 0
fi
if ! $yes && ! $dry_run; then
  printf 'delete %s (%s) in %s? [y/N] ' "$name" "$state" "$zone"
  read -r answer || answer=''
  [ "$answer" = y ] || fail 'nothing was deleted'
fi
# --force takes the TPU that the request has been given along.
[ "$queue" = ABSENT ] || gcloud_tpu queued-resources delete --force --quiet
[ "$state" = ABSENT ] || [ "${queue:-ABSENT}" != ABSENT ] \
  || gcloud_tpu tpu-vm delete --quiet
$dry_run || say "$name is deleted"
