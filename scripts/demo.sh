#!/usr/bin/env bash
# demo.sh shows a group of three at work: it starts one in ./sandbox, commits a
# transaction through one member, reads it on every member's mysqld, and says
# how to connect. On a terminal the group runs until Ctrl-C; otherwise it is
# stopped at the end. Its data stay for the next time (DIR changes the place).
set -euo pipefail
cd "$(dirname "$0")/.."
cohort=${COHORT_BIN:-bin/cohort}
dir=${DIR:-sandbox}
mysql=$(./scripts/mysqld.sh)/mysql

step() { printf '\n== %s\n' "$*"; }
stop() { trap - EXIT INT TERM; echo; echo 'stopping the group …'; "$cohort" sandbox stop --dir "$dir"; }

trap stop EXIT
trap exit INT TERM

step 'a group of three: one stock mysqld and one member each'
"$cohort" sandbox start --dir "$dir" --detach

# One field of every member, in order.
field() { "$cohort" sandbox status --dir "$dir" --json | sed -nE "s/^ *\"$1\": \"?([^\",]*)\"?,?\$/\\1/p"; }
mapfile -t names < <(field name)
mapfile -t ports < <(field port)
mapfile -t roles < <(field role)
mapfile -t sockets < <(field mysqld_socket)
mapfile -t https < <(field http)

# Any member takes writes: use one that is not the primary, where there is one.
through=0
for i in "${!roles[@]}"; do [[ ${roles[i]} == SECONDARY ]] && through=$i && break; done
client() { "$mysql" --no-defaults --host=127.0.0.1 --port="${ports[$1]}" --user=plain --password=plain --database=plain "${@:2}" 2> >(grep -v 'Using a password' >&2); }

step "through ${names[through]} (${roles[through]}): a table, and a transaction"
client "$through" --verbose --execute '
CREATE TABLE IF NOT EXISTS greeting (id INT AUTO_INCREMENT PRIMARY KEY, text VARCHAR(100), at DATETIME DEFAULT CURRENT_TIMESTAMP);
BEGIN;
INSERT INTO greeting (text) VALUES ("hello"), ("and good day");
COMMIT;'
count=$(client "$through" --skip-column-names --execute 'SELECT COUNT(*) FROM greeting')

step 'the same rows on the mysqld of every member'
for i in "${!names[@]}"; do
  direct() { "$mysql" --no-defaults --socket="${sockets[i]}" --user=root "$@"; }
  for ((try = 0; try < 300; try++)); do # secondaries apply a moment later
    got=$(direct --skip-column-names --execute 'SELECT COUNT(*) FROM plain.greeting' 2>/dev/null) || got=
    [[ $got == "$count" ]] && break
    sleep 0.1
  done
  [[ $got == "$count" ]] || { echo "${names[i]}: $got rows instead of $count" >&2; exit 1; }
  printf '%s (%s): %s rows, gtid_executed %s\n' "${names[i]}" "${roles[i]}" "$got" \
    "$(direct --skip-column-names --raw --execute 'SELECT @@gtid_executed' | tr -d '\n')"
  direct --table --execute 'SELECT * FROM plain.greeting ORDER BY id DESC LIMIT 2'
done

step 'connect to any of them'
for i in "${!names[@]}"; do
  printf '%s  %-9s  app:app@tcp(127.0.0.1:%s)/   %s/status\n' "${names[i]}" "${roles[i]}" "${ports[i]}" "${https[i]}"
done
printf '\n%s --host=127.0.0.1 --port=%s --user=app --password=app\n' "$mysql" "${ports[0]}"

if [[ -t 0 && -t 1 ]]; then
  printf '\nThe group runs until Ctrl-C; its data stay in %s.\n' "$dir"
  while :; do sleep 3600 & wait $!; done
fi
