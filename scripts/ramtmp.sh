#!/usr/bin/env bash
# ramtmp.sh COMMAND... runs a command with its temporary files in memory where
# there is room, and as it is elsewhere. Tests start some hundred mysqlds, which
# wait for nothing as long as for a disk's fsync; what they prove is about killed
# processes, and those leave in memory what they leave in a page cache.
# COHORT_TEST_RAM=no has it use the disk.
set -euo pipefail
cd "$(dirname "$0")/.."

need=$((12 << 20)) # KiB: files take up to 5 GiB, mysqlds the rest
memory=/dev/shm
dir=$memory/cohort-$(id -u) # short: sockets are below it

# free_kib prints how much memory is free, or only caches files; a container may
# have less than its machine.
free_kib() {
  local free limit at
  free=$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)
  for at in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do
    [[ -r $at && $(<"$at") =~ ^[0-9]{1,16}$ ]] || continue
    limit=$(awk -v limit="$(<"$at")" '
      FILENAME ~ /stat$/ { if ($1 ~ /^(in)?active_file$/) limit += $2; next }
      { limit -= $1 }
      END { printf "%d", limit / 1024 }' "$(ls "${at%/*}"/memory.{current,usage_in_bytes} 2>/dev/null)" "${at%/*}/memory.stat")
    ((limit >= free)) || free=$limit
  done
  echo "$free"
}

# usable says whether there is memory, and programs may be run from there.
usable() {
  [[ ${COHORT_TEST_RAM:-} != no ]] || return 1
  [[ $(stat -f -c %T "$memory" 2>/dev/null) == tmpfs && -w $memory ]] || return 1
  (($(df -k --output=avail "$memory" | tail -n 1) >= need / 2 && $(free_kib) >= need)) || return 1
  mkdir -p -m 700 "$dir" && [[ -O $dir && ! -L $dir ]] || return 1
  printf '#!/bin/sh\n' >"$dir/.$$" && chmod 700 "$dir/.$$" || return 1
  "$dir/.$$" 2>/dev/null && rm -f "$dir/.$$" || { rm -f "$dir/.$$"; return 1; }
}

if ! usable 2>/dev/null; then exec "$@"; fi

# Runs share the directory, so that go test knows its cached results. The last one
# leaves it empty, the first one after a run that was killed finds it so.
exec 9>"$dir.lock"
sweep() {
  flock -n -x 9 || return 0
  local box
  for box in "$dir"/*/sandbox.json; do # of a run that was killed: its members live
    [[ -e $box ]] && bin/cohort sandbox destroy --dir "${box%/*}" || true
  done
  rm -rf "${dir:?}"/*
}
sweep
flock -s 9
trap sweep EXIT
unset GOTMPDIR
# In one piece: bash reads a script as it goes, and this one may be replaced.
{ TMPDIR=$dir "$@" 9>&-; exit; }
