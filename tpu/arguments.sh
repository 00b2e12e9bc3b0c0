# shellcheck shell=bash
# What the scripts here share: their flags, and how a command is run or printed.
#
# A script sets `help`, sources this file, and calls
#
#   parse_flags '--workdir --mount' '--checkpoints' "$@"
#
# with the flags of its own that take a value, and those that take none. Every flag
# becomes the variable of its name; what follows `--` becomes the array `arguments`.
# Exit codes are those of the Python commands: 1 it failed, 2 what was given is wrong.
#
# shellcheck disable=SC2034,SC2154  # variables are shared with those scripts

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
arguments=()
exec 3>&1 # where a dry run prints, also from inside $(...)

say() { printf '%s\n' "$*"; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

refuse() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

parse_flags() {
  local valued=" --name --zone --project --type --version $1 "
  local switches=" --spot --dry_run $2 "
  local flag value
  name='' zone='' project='' type='' version='' spot=false dry_run=false
  shift 2
  while [ $# -gt 0 ]; do
    flag=${1%%=*}
    if [ "$flag" = --help ]; then
      say "$help"
      exit 0
    elif [ "$1" = -- ]; then
      shift
      arguments=("$@")
      break
    elif [[ $switches == *" $1 "* ]]; then
      printf -v "${1#--}" true
    elif [[ $valued == *" $flag "* ]]; then
      if [ "$1" != "$flag" ]; then
        value=${1#*=}
      else
        value=${2-}
        [[ $value != --* ]] || value=''
        shift
      fi
      [ -n "$value" ] || refuse "$flag: got no value; see $(basename "$0") --help"
      printf -v "${flag#--}" %s "$value"
    else
      refuse "no such flag: $1; see $(basename "$0") --help"
    fi
    shift
  done
  require --name --zone
  where=("--zone=$zone" ${project:+"--project=$project"})
  $dry_run || command -v gcloud >/dev/null \
    || refuse 'gcloud is not installed; see https://cloud.google.com/sdk/docs/install'
}

# require --name --zone: refuses to go on without a value for each of these flags.
require() {
  local flag variable
  for flag in "$@"; do
    variable=${flag#--}
    [ -n "${!variable}" ] || refuse "$flag is missing; see $(basename "$0") --help"
  done
}

# The runtime version that goes with a chip, unless --version says.
choose_version() {
  [ -z "$version" ] || return 0
  case $type in
    v6e-*) version=v2-alpha-tpuv6e ;;
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v2-* | v3-* | v4-*) version=tpu-ubuntu2204-base ;;
    *) refuse "--type: got $type, expected such as v4-8, v5litepod-16 (v5e), v5p-8, v6e-8" ;;
  esac
}

# Prints words on one line such that a shell reads them back.
quote() {
  local word line='' quote="'" escaped="'\\''"
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=@,+%-]+$ ]] || word="'${word//$quote/$escaped}'"
    line+=" $word"
  done
  printf '%s\n' "${line:1}"
}

# Runs a command; in a dry run, prints it. `$addresses`, which a dry run cannot know,
# is left to the shell into which the line is pasted.
run() {
  local line variable="'\"\$addresses\"'"
  if ! $dry_run; then
    "$@"
    return
  fi
  line=$(quote "$@")
  printf '%s\n' "${line//\$addresses/$variable}" >&3
}

# gcloud_tpu tpu-vm describe --format=...: about the TPU that the flags name.
gcloud_tpu() { run gcloud compute tpus "$1" "$2" "$name" "${where[@]}" "${@:3}"; }

# on_workers all 'command': at the same time on every worker, in its home directory.
# The exit code is the first one that is not 0.
on_workers() { gcloud_tpu tpu-vm ssh "--worker=$1" "--command=$2"; }

# Prints the state of the `tpu-vm` or of the `queued-resources` of that name, ABSENT if
# there is none, and nothing in a dry run.
state_of() {
  local field=state complaints state
  [ "$1" = tpu-vm ] || field=state.state
  complaints=$(mktemp)
  if state=$(gcloud_tpu "$1" describe "--format=value($field)" 2>"$complaints"); then
    say "$state"
  elif grep -q NOT_FOUND "$complaints"; then
    say ABSENT
  else
    cat "$complaints" >&2
    rm -f "$complaints"
    exit 1
  fi
  rm -f "$complaints"
}

# Sets `addresses` to the workers' internal IPs, worker 0's first: 10.0.0.2;10.0.0.3
ask_addresses() {
  local ask=(gcloud compute tpus tpu-vm describe "$name" "${where[@]}"
    '--format=value(networkEndpoints[].ipAddress)')
  if $dry_run; then
    # shellcheck disable=SC2016  # for the shell that it is pasted into
    printf 'addresses=$(%s)\n' "$(quote "${ask[@]}")" >&3
    # shellcheck disable=SC2016  # for `run`
    addresses='$addresses'
  else
    addresses=$("${ask[@]}")
    [ -n "$addresses" ] || fail "$name has no address yet; wait until it is READY"
  fi
}

# What a run needs: an absolute --workdir, and the trainer's arguments.
require_run() {
  require --workdir
  [[ $workdir == /* || $workdir == gs://* ]] \
    || refuse "--workdir: got $workdir, expected gs:// or a full path that all workers share"
  [ ${#arguments[@]} -gt 0 ] \
    || refuse "the trainer's arguments are missing: end with -- --gin_file=gin/pretrain.gin"
}
