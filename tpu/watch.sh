#!/usr/bin/env bash
# Watches a run and starts it again when it is preempted, until it is done.
#
# From nothing, too: a TPU that is not there is created, one that is not set up is set
# up, a run that was never started is started.
set -euo pipefail

help="Watches a run and starts it again when it is preempted, until it is done.

  tpu/watch.sh --name=phi1 --zone=us-east5-b --type=v6e-8 --spot \\
    --workdir=gs://my-phi1-runs/pretrain -- --gin_file=gin/pretrain.gin

  --name NAME        of the TPU
  --zone ZONE        where it stands
  --project PROJECT  (default: gcloud's)
  --type TYPE        to create it again: such as v4-8, v5litepod-16 (v5e), v6e-8
  --version VERSION  of the runtime (default: what goes with the type)
  --spot             as it was created
  --workdir FOLDER   where the run lives: gs://, or on a file system that all workers share
  --mount COMMAND    what every worker runs first, to mount the shared file system
  --every SECONDS    between two looks (default 60)
  --restarts N       give up after N restarts in a row without a new checkpoint
                     (default 5)
  --dry_run          print the commands of a look and of a restart, run nothing
  -- ARGUMENT...     of python -m phi1_jax.train

Exit codes are the trainer's: 0 done, 1 failed (or gave up), 2 wrong input."
workdir='' mount='' every=60 restarts=5
# shellcheck source-path=SCRIPTDIR source=arguments.sh
. "$(dirname "$0")/arguments.sh"

# What the workers' outcomes mean together: done, running, restart, wrong or failed.
judge() {
  local all ended verdict
  [ $# -gt 0 ] || return 0
  all=$(printf ' %s ' "$@")
  ended=${all// running /}
  case $ended in
    # One whose peers were preempted ends as it likes; what still runs will end, too.
    # 143: SIGTERM came while the trainer was starting, with nothing to save.
    *' 75 '* | *' 143 '* | *' lost '*) verdict=restart ;;
    *' 2 '*) say wrong && return ;;
    *[!\ 0]*) say failed && return ;;
    *) verdict='done' ;;
  esac
  if [ "$ended" = "$all" ]; then say "$verdict"; else say running; fi
}

# What it means that the TPU is not READY. Others than these come and go by themselves,
# or somebody wants them (STOPPED).
judge_state() {
  case $1 in
    PREEMPTED | TERMINATED | FAILED | SUSPEND*) say preempted ;;
    ABSENT) say bare ;; # as is one that is not set up
  esac
}

# Sets `verdict`, and `newest`, the newest checkpoint: one look at the TPU and the run.
look() {
  local state answer code=0
  verdict=unknown
  state=$(state_of tpu-vm) || return 0
  if [ "$state" = ABSENT ] && $spot; then
    # Still in the queue, or taken away and deleted?
    state=$(state_of queued-resources) || return 0
    case $state in
      FAILED | SUSPEND*) ;;
      *) state=ABSENT ;;
    esac
  fi
  case $state in
    READY | '') ;;
    *)
      say "$name is $state"
      verdict=$(judge_state "$state")
      return
      ;;
  esac
  answer=$(on_workers all "bash phi1_jax/tpu/worker.sh status $(quote "$workdir")") \
    || code=$?
  case $code in
    0) ;;
    127)
      verdict=bare # no worker.sh: nothing has been set up
      return
      ;;
    *) return 0 ;; # no connection; the next look says more
  esac
  $dry_run || say "$answer"
  # shellcheck disable=SC2046  # words are meant
  verdict=$(judge $(awk '$1 == "worker" { print $3 }' <<<"$answer"))
  newest=$(awk -v newest="$newest" '$1 == "worker" && $4 > newest { newest = $4 }
    END { print newest }' <<<"$answer")
  # Workers of a TPU that is being taken away fail in many ways.
  if [ "$verdict" = failed ]; then
    state=$(state_of tpu-vm) || state=unknown
    [ "$state" = READY ] || verdict=$(judge_state "$state")
  fi
}

# start_again preempted|bare|restart: as much anew as is gone.
start_again() {
  if [ "$1" = preempted ]; then
    "$here/delete.sh" "${flags[@]}" --yes || return
  fi
  if [ "$1" != restart ]; then
    "$here/create.sh" "${flags[@]}" "--every=$every" || return
    "$here/setup_host.sh" "${flags[@]}" ${mount:+"--mount=$mount"} || return
  fi
  "$here/run.sh" "${flags[@]}" "--workdir=$workdir" -- "${arguments[@]}"
}

# Ends with the trainer's code and the last lines of every log.
stop() {
  on_workers all 'bash phi1_jax/tpu/worker.sh log' >&2 || true
  printf 'error: the run %s\n' "$2" >&2
  exit "$1"
}

parse_flags '--workdir --mount --every --restarts' '' "$@"
require --type
require_run
choose_version
flags=("${where[@]}" "--name=$name" "--type=$type" "--version=$version")
if $spot; then flags+=(--spot); fi
newest=-1 newest_before=-1 in_a_row=0

if $dry_run; then
  flags+=(--dry_run)
  look
  start_again preempted
  exit 0
fi
while true; do
  look
  case $verdict in
    done)
      say "done; see tpu/fetch.sh, and tpu/delete.sh: until then the TPU costs money"
      exit 0
      ;;
    wrong) stop 2 'was refused; the same arguments will be refused again' ;;
    failed) stop 1 'failed' ;;
    restart | bare | preempted)
      if [ "$newest" -gt "$newest_before" ]; then in_a_row=0; fi
      newest_before=$newest
      in_a_row=$((in_a_row + 1))
      [ "$in_a_row" -le "$restarts" ] \
        || fail "gave up after $restarts restarts without a new checkpoint"
      say "starting again ($verdict, checkpoint $newest, $in_a_row of $restarts)"
      # What else fails there may be the next preemption, which the next look finds.
      start_again "$verdict" || [ $? != 2 ] || exit 2
      ;;
    *) ;; # running, or nothing is known: look again
  esac
  sleep "$every"
done
