#!/usr/bin/env bash
# fuzz.sh runs every fuzz target of the module for a time each (default 1m), or
# those of the packages given: fuzz.sh [TIME [PACKAGE...]]
set -euo pipefail
cd "$(dirname "$0")/.."
duration=${1:-1m}
shift || true
failed=()
log=$(mktemp)
trap 'rm -f "$log"' EXIT
while IFS=' ' read -r package target; do
  printf '== %s %s\n' "$package" "$target"
  go test -run '^$' -fuzz "^$target\$" -fuzztime "$duration" "$package" 2>&1 | tee "$log" && continue
  # A worker that is busy at the very end makes go test report its own deadline,
  # with no failing input: nothing was found then.
  if grep -q '^ *context deadline exceeded$' "$log" && ! grep -qE 'Failing input|panic|seed#|hung or terminated' "$log"; then continue; fi
  failed+=("$package $target")
done < <(
  go list -f '{{$p := .ImportPath}}{{$d := .Dir}}{{range .TestGoFiles}}{{$p}} {{$d}}/{{.}}
{{end}}{{range .XTestGoFiles}}{{$p}} {{$d}}/{{.}}
{{end}}' "${@:-./...}" | while read -r package file; do
    [[ -n $file ]] || continue
    { grep -oE '^func Fuzz[A-Za-z0-9_]*\(' "$file" || true; } | sed -E "s#^func (Fuzz[A-Za-z0-9_]*)\\(#$package \\1#"
  done
)
if ((${#failed[@]})); then
  printf 'findings in:\n'; printf '  %s\n' "${failed[@]}"; exit 1
fi
