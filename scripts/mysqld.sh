#!/usr/bin/env bash
# mysqld.sh finds a stock MySQL server, or fetches one, and prints the path of
# a directory of programs: mysqld, mysql, mysqldump, mysqladmin, mysqlbinlog
# and, when asked for with --with, mysqlrouter, mysqltest, sysbench, mysqld-clock.
#
# Each program there is a small wrapper that execs the real one, so its process
# id is the server's. Nothing is installed: a fetched server is unpacked into a
# private root below the cache directory and runs with that root's own loader
# and libraries.
#
#   mysqld.sh [--with router|testsuite|sysbench|clock]... [--env|--json]
#             [--refresh] [--fetch] [--no-fetch]
#
#   --with NAME   also provide MySQL Router, the test suite, sysbench, or (of a
#                 fetched server only) mysqld-clock: mysqld with a clock that is off
#                 by what the file clock says, as +3600 or -600 seconds, in the
#                 directory that it is started in; the file is read once a second
#   --env         print shell assignments instead of the directory's path
#   --json        print a JSON object instead
#   --refresh     read the package lists again, and take a newer server
#   --fetch       do not look for a server on this machine
#   --no-fetch    never use the network
#
# Environment:
#   COHORT_MYSQLD      path of the mysqld to use: neither look nor fetch
#   COHORT_CACHE       cache directory (default ${XDG_CACHE_HOME:-~/.cache}/cohort)
#   COHORT_APT_MIRROR  package mirror (default: the one this machine's apt uses)
set -euo pipefail
umask 022

say() { printf 'mysqld.sh: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# mysqlversion.Oldest says why.
MIN_VERSION=8.0.30

want=() format=dir refresh= allow_fetch=1 allow_find=1
while (($#)); do
  case $1 in
    --with) [[ ${2-} =~ ^(router|testsuite|sysbench|clock)$ ]] || die "--with takes router, testsuite, sysbench or clock"
            want+=("$2"); shift ;;
    --env) format=env ;;
    --json) format=json ;;
    --refresh) refresh=1 ;;
    --fetch) allow_find= ;;
    --no-fetch) allow_fetch= ;;
    -h|--help) if [[ -r ${BASH_SOURCE[0]-} ]]; then sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; fi; exit 0 ;;
    *) die "unknown argument $1 (see --help)" ;;
  esac
  shift
done

cache=${COHORT_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/cohort}
mkdir -p "$cache/mysqld" || die "cannot create the cache directory $cache: set COHORT_CACHE"
cache=$(cd "$cache/mysqld" && pwd -P)

# ---------------------------------------------------------------- printing

program_for() { # the program that shows that an extra is there
  case $1 in router) echo mysqlrouter ;; testsuite) echo mysqltest ;; sysbench) echo sysbench ;;
    clock) echo mysqld-clock ;; esac
}

complete() { # complete BINDIR: does it have all that was asked for?
  local bin=$1 w
  [[ -x $bin/mysqld && -x $bin/mysql && -x $bin/mysqldump && -x $bin/mysqlbinlog ]] || return 1
  for w in ${want[@]+"${want[@]}"}; do [[ -x $bin/$(program_for "$w") ]] || return 1; done
}

emit() { # emit BINDIR
  local bin=$1 p path sep=
  [[ $format == dir ]] && { printf '%s\n' "$bin"; return; }
  # info is written beside the wrappers: VERSION, BASEDIR, PLUGIN_DIR, ...
  local VERSION='' BASEDIR='' PLUGIN_DIR='' LC_MESSAGES_DIR='' CHARACTER_SETS_DIR='' MYSQL_TEST_DIR=''
  # shellcheck disable=SC1091
  . "$bin/../info"
  if [[ $format == env ]]; then
    printf 'COHORT_MYSQLD_BIN=%q\n' "$bin"
    for p in VERSION BASEDIR PLUGIN_DIR LC_MESSAGES_DIR CHARACTER_SETS_DIR MYSQL_TEST_DIR; do
      printf 'MYSQL_%s=%q\n' "${p#MYSQL_}" "${!p}"
    done
    for path in "$bin"/*; do
      p=$(basename "$path" | tr 'a-z-' 'A-Z_'); printf '%s=%q\n' "$p" "$path"
    done
    return
  fi
  json() { local s=${1//\\/\\\\}; printf '"%s"' "${s//\"/\\\"}"; }
  printf '{"bin":%s,"version":%s,"basedir":%s,"plugin_dir":%s,"lc_messages_dir":%s,"character_sets_dir":%s,"mysql_test_dir":%s,"programs":{' \
    "$(json "$bin")" "$(json "$VERSION")" "$(json "$BASEDIR")" "$(json "$PLUGIN_DIR")" \
    "$(json "$LC_MESSAGES_DIR")" "$(json "$CHARACTER_SETS_DIR")" "$(json "$MYSQL_TEST_DIR")"
  for path in "$bin"/*; do printf '%s%s:%s' "$sep" "$(json "$(basename "$path")")" "$(json "$path")"; sep=,; done
  printf '}}\n'
}

# version_of PROGRAM prints x.y.z of a stock MySQL server, nothing for others.
version_of() {
  local text
  text=$("$1" --no-defaults --version 2>/dev/null) || return 0
  [[ $text == *MariaDB* || $text == *Percona* ]] && return 0
  [[ $text =~ Ver\ ([0-9]+\.[0-9]+\.[0-9]+) ]] && printf '%s\n' "${BASH_REMATCH[1]}"
  return 0
}

at_least() { [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]; }

# ---------------------------------------------------------------- a server on this machine

find_server() {
  local path v
  if [[ -n ${COHORT_MYSQLD-} ]]; then
    path=$(command -v -- "$COHORT_MYSQLD") || die "COHORT_MYSQLD=$COHORT_MYSQLD: no such program"
    v=$(version_of "$path")
    [[ -n $v ]] || die "COHORT_MYSQLD=$COHORT_MYSQLD is not a MySQL server (mysqld --version says: $("$path" --version 2>&1 | head -n 1))"
    at_least "$MIN_VERSION" "$v" || die "COHORT_MYSQLD=$COHORT_MYSQLD is MySQL $v: $MIN_VERSION or later is needed"
    printf '%s\n' "$path"; return
  fi
  [[ -n $allow_find ]] || return 0
  for path in "$(command -v mysqld || true)" /usr/sbin/mysqld /usr/bin/mysqld /usr/libexec/mysqld \
              /usr/local/bin/mysqld /usr/local/mysql/bin/mysqld /opt/mysql/bin/mysqld \
              /opt/homebrew/bin/mysqld; do
    [[ -n $path && -x $path ]] || continue
    v=$(version_of "$path")
    if [[ -z $v ]]; then say "$path is not stock MySQL: not used"; continue; fi
    if ! at_least "$MIN_VERSION" "$v"; then say "$path is MySQL $v, older than $MIN_VERSION: not used"; continue; fi
    if confined "$path"; then say "AppArmor confines $path to its own directories: not used"; continue; fi
    printf '%s\n' "$path"; return
  done
}

# confined MYSQLD: may it write nowhere but in the distribution's directories?
confined() {
  local name; name=$(readlink -f -- "$1"); name=${name#/}
  [[ $(cat /sys/module/apparmor/parameters/enabled 2>/dev/null) == Y && -e /etc/apparmor.d/${name//\//.} &&
     ! -e /etc/apparmor.d/disable/${name//\//.} ]]
}

# wrap_found MYSQLD makes a directory of wrappers round an installed server.
wrap_found() {
  local mysqld=$1 dir bin p path v home
  mysqld=$(readlink -f -- "$mysqld")
  v=$(version_of "$mysqld")
  dir=$cache/found-$(printf '%s %s' "$mysqld" "$v" | cksum | tr ' ' '-')
  bin=$dir/bin home=$(dirname "$mysqld")
  if ! complete "$bin"; then
    mkdir -p "$bin.new"
    printf '#!/bin/sh\n' >"$bin.new/mysqld"
    user_and_defaults >>"$bin.new/mysqld"
    printf 'exec %q "$@"\n' "$mysqld" >>"$bin.new/mysqld"
    for p in mysql mysqldump mysqladmin mysqlbinlog mysqlrouter mysqltest mysql_client_test sysbench; do
      for path in "$home/$p" "$home/../bin/$p" "$(command -v "$p" || true)"; do
        [[ -n $path && -x $path ]] || continue
        printf '#!/bin/sh\nexec %q "$@"\n' "$(readlink -f -- "$path")" >"$bin.new/$p"; break
      done
    done
    chmod 755 "$bin.new"/*
    {
      printf 'VERSION=%q\n' "$v"
      "$mysqld" --no-defaults --verbose --help 2>/dev/null | awk '
        function q(s) { gsub(/\047/, "\047\\\047\047", s); return "\047" s "\047" }
        $1=="basedir"{print "BASEDIR=" q($2)} $1=="plugin-dir"{print "PLUGIN_DIR=" q($2)}
        $1=="lc-messages-dir"{print "LC_MESSAGES_DIR=" q($2)} $1=="character-sets-dir"{print "CHARACTER_SETS_DIR=" q($2)}'
    } >"$dir/info"
    rm -rf "$bin"; mv "$bin.new" "$bin"
    # What the machine lacks comes from a private root.
    if ! complete "$bin"; then
      local private; private=$(fetch) || exit 1
      for path in "$private"/*; do
        p=$(basename "$path")
        [[ -e $bin/$p ]] || ln -s "$path" "$bin/$p"
      done
    fi
  fi
  emit "$bin"
}

# user_and_defaults prints the part of a mysqld wrapper that keeps a leading
# --defaults-file in the first place and adds --user=root for root.
user_and_defaults() {
  cat <<'WRAP'
first=
case ${1-} in
  --defaults-file=*|--defaults-extra-file=*|--no-defaults|--print-defaults) first=$1; shift ;;
esac
if [ "$(id -u)" = 0 ]; then set -- --user=root "$@"; fi
WRAP
  [[ -n ${1-} ]] && printf '%s\n' "$1"
  cat <<'WRAP'
if [ -n "$first" ]; then set -- "$first" "$@"; fi
WRAP
}

# ---------------------------------------------------------------- fetching

apt_dir=$cache/apt

# apt runs apt-get with lists, cache and package status of its own. The status
# file is empty: apt then resolves everything down to the C library.
apt() { APT_CONFIG=$apt_dir/apt.conf apt-get "$@"; }

# archives prints "URI|SUITE|COMPONENT|KEY" of what the machine's apt uses. It knows the
# components only of archives whose lists it has, and a new machine has none: there main
# is taken for granted.
archives() {
  local all
  all=$(apt-get indextargets --format '$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)' 'Created-By: Packages' 2>/dev/null || true)
  if [[ -z $all ]]; then
    all=$(apt-get --print-uris update 2>/dev/null | sed -n "s#^'\(.*\)/dists/\(.*\)/InRelease'.*#\1|\2|main|#p" || true)
  fi
  printf '%s\n' "$all"
}

# sources prints "URI SUITE COMPONENTS SIGNED_BY" of the archive to use.
sources() {
  local id='' codename='' uri='' key='' line r_uri r_rel r_comp r_key
  # shellcheck disable=SC1091
  id=$(. /etc/os-release; printf '%s' "${ID-}"); codename=$(. /etc/os-release; printf '%s' "${VERSION_CODENAME-}")
  uri=${COHORT_APT_MIRROR-}
  while IFS='|' read -r r_uri r_rel r_comp r_key; do
    [[ $r_comp == main && $r_rel != *-security* && $r_rel != *-updates* && $r_rel != *-backports* ]] || continue
    case $id in
      ubuntu) [[ $r_rel == "$codename" ]] || continue ;;
      *) [[ $r_uri =~ debian(/[^/]*)?/?$ ]] || continue ;;
    esac
    uri=${uri:-$r_uri} key=$r_key; break
  done < <(archives)
  # A key written in the source itself, or none: then it is one that apt trusts anyhow.
  [[ $key == /* ]] || key=''
  case $id in
    ubuntu)
      [[ -n $uri ]] || die "this machine's apt configuration names no Ubuntu archive: set COHORT_APT_MIRROR"
      [[ -r /usr/share/keyrings/ubuntu-archive-keyring.gpg ]] && key=/usr/share/keyrings/ubuntu-archive-keyring.gpg
      local suite
      for suite in "$codename" "$codename-updates" "$codename-security"; do printf '%s|%s|main universe|%s\n' "$uri" "$suite" "$key"; done ;;
    *)
      [[ -n $uri ]] || die "this machine's apt configuration names no Debian archive: set COHORT_APT_MIRROR"
      [[ -r /usr/share/keyrings/debian-archive-keyring.gpg ]] && key=/usr/share/keyrings/debian-archive-keyring.gpg
      printf '%s|sid|main|%s\n' "$uri" "$key" ;;
  esac
}

apt_setup() {
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    die "no MySQL server found, and no apt to fetch one with: install MySQL $MIN_VERSION or later, or set COHORT_MYSQLD to a mysqld"
  mkdir -p "$apt_dir"/{lists/partial,cache/archives/partial,none}
  : >"$apt_dir/status"
  local list=$apt_dir/sources.list.new uri suite comps key
  sources >"$apt_dir/sources.raw" || exit 1
  while IFS='|' read -r uri suite comps key; do
    printf 'deb [arch=%s%s] %s %s %s\n' "$(dpkg --print-architecture)" "${key:+ signed-by=$key}" "$uri" "$suite" "$comps"
  done <"$apt_dir/sources.raw" >"$list"
  if ! cmp -s "$list" "$apt_dir/sources.list"; then refresh=1; fi
  mv "$list" "$apt_dir/sources.list"
  {
    # How to reach a mirror (proxies and the like) is the host's business;
    # its hooks and its own directories are not to be touched.
    apt-config dump 2>/dev/null | grep -E '^Acquire::(http|https|ftp|Retries|ForceIPv4|ForceIPv6|Check-)' | grep -v '"";$' || true
    cat <<CONF
Dir::Etc::main "$apt_dir/none/none";
Dir::Etc::parts "$apt_dir/none";
Dir::Etc::sourcelist "$apt_dir/sources.list";
Dir::Etc::sourceparts "-";
Dir::State "$apt_dir";
Dir::State::Lists "$apt_dir/lists";
Dir::State::status "$apt_dir/status";
Dir::State::extended_states "$apt_dir/extended_states";
Dir::Cache "$apt_dir/cache";
Dir::Log "$apt_dir";
Acquire::Languages "none";
Acquire::Retries "3";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Keep-Downloaded-Packages "true";
APT::Sandbox::User "$(id -un)";
CONF
  } >"$apt_dir/apt.conf"
}

lists_there() { compgen -G "$apt_dir/lists/*_Packages*" >/dev/null; }

apt_update() {
  say "reading the package lists of $(awk '{print $3, $4}' "$apt_dir/sources.list" 2>/dev/null | head -n 1 | sed 's#://[^/@]*@#://#') …"
  apt -q update >&2 || return 1
  lists_there
}

offline() {
  die "cannot reach the package archive ($(cut -d'|' -f1,2 "$apt_dir/sources.raw" | head -n 1 | tr '|' ' ' | sed 's#://[^/@]*@#://#')). Once a server is in $cache no network is needed; or set COHORT_MYSQLD to a mysqld $MIN_VERSION or later, or COHORT_APT_MIRROR to a mirror that can be reached"
}

# candidate NAMES... prints the first that the archive has.
candidate() {
  local p
  for p; do
    # A name that is only provided by others is shown as nothing, without an error.
    if [[ -n $(APT_CONFIG=$apt_dir/apt.conf apt-cache show --no-all-versions "$p" 2>/dev/null) ]]; then printf '%s\n' "$p"; return; fi
  done
  return 1
}

# debs PACKAGES... prints the file names of their closure. (--print-uris would
# leave out what is downloaded already.)
debs() {
  apt -qq -s install "$@" 2>"$apt_dir/resolve.log" |
    sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) [^[]*\[\([^]]*\)\].*/\1_\2_\3.deb/p' | sed 's/:/%3a/g' | sort
}

packages() { # names of the packages for what is wanted
  local w
  candidate mysql-server-core mysql-server-core-8.4 mysql-server-core-8.0 || return 1
  candidate mysql-client-core mysql-client-core-8.4 mysql-client-core-8.0 || return 1
  for w in ${want[@]+"${want[@]}"}; do
    case $w in
      router) candidate mysql-router ;;
      testsuite) candidate mysql-testsuite mysql-testsuite-8.4 mysql-testsuite-8.0 ;;
      sysbench) candidate sysbench ;;
      clock) candidate libfaketime ;;
    esac || { say "the archive has no package for $w"; return 1; }
  done
}

download() { # download PACKAGES...: resumable, apt verifies the checksums
  apt -q -y --download-only install "$@" | { grep --line-buffered -E '^(Get|Err|Ign|Fetched)' >&2 || true; }
}

# fetch prints the directory of programs of the private root.
fetch() {
  exec 9>"$cache/lock"
  if ! flock -n 9; then say "waiting for another fetch to end …"; flock 9; fi
  local bin; bin=$(current)
  if [[ -z $refresh && -n $bin ]] && complete "$bin"; then printf '%s\n' "$bin"; return; fi
  [[ -n $allow_fetch ]] || die "no MySQL server in $cache, and --no-fetch was given"
  apt_setup
  if [[ -n $refresh ]] || ! lists_there; then
    apt_update || { lists_there && [[ -z $refresh ]] || offline; }
  fi

  local base all key root tmp deb pkgs
  pkgs=$(packages) || { apt_update || offline; pkgs=$(packages) || die "the package archive has no MySQL server: set COHORT_MYSQLD, or COHORT_APT_MIRROR to a Debian mirror"; }
  local -a p; mapfile -t p <<<"$pkgs"
  # Each extra is resolved on its own, beside the server: as installed packages
  # some of them exclude one another, as unpacked files they do not.
  local extra set=("${p[@]:0:2}")
  for extra in "" "${p[@]:2}"; do
    say "downloading ${extra:-${set[*]}} with its libraries …"
    # shellcheck disable=SC2086
    if ! download "${set[@]}" $extra; then
      # The lists may be older than the archive, which keeps only the newest.
      apt_update || offline
      # shellcheck disable=SC2086
      download "${set[@]}" $extra || offline
    fi
  done
  # Everything is in the archives directory now; the base set names the root.
  base=$(debs "${set[@]}")
  # shellcheck disable=SC2086
  all=$(for extra in "" "${p[@]:2}"; do debs "${set[@]}" $extra; done | sort -u)
  [[ -n $base && -n $all ]] || die "apt could not resolve ${p[*]}: $(tail -n 3 "$apt_dir/resolve.log")"
  key=$(printf '%s\n' "$base" | sha256sum | cut -c1-12)
  root=$cache/root-$key tmp=$cache/root-$key.part
  [[ -d $root ]] && tmp=$root
  mkdir -p "$tmp/.unpacked"
  local n=0 total; total=$(wc -l <<<"$all")
  while read -r deb; do
    n=$((n + 1))
    [[ -e $tmp/.unpacked/$deb ]] && continue
    [[ -t 2 ]] && printf '\rmysqld.sh: unpacking %d of %d \033[K' "$n" "$total" >&2
    dpkg-deb -x "$apt_dir/cache/archives/$deb" "$tmp" || die "cannot unpack $deb into $tmp (is the disk full?)"
    : >"$tmp/.unpacked/$deb"
  done <<<"$all"
  [[ -t 2 ]] && printf '\r\033[K' >&2
  [[ $tmp == "$root" ]] || mv "$tmp" "$root"
  wrap_root "$root"
  ln -sfn "root-$key" "$cache/current.new" && mv -T "$cache/current.new" "$cache/current"
  say "MySQL $(sed -n 's/^VERSION=//p' "$root/info") is ready in $root"
  printf '%s\n' "$root/bin"
}

# current prints the programs' directory of the last fetched root, if any.
current() {
  local root; root=$(readlink -f "$cache/current" 2>/dev/null) || return 0
  [[ -x $root/bin/mysqld ]] && printf '%s\n' "$root/bin"
  return 0
}

# wrap_root ROOT writes ROOT/bin and ROOT/info.
wrap_root() {
  local root=$1 loader='' libs='' d path p body
  for path in "$root"/usr/lib64/ld-linux-*.so.* "$root"/lib64/ld-linux-*.so.* "$root"/usr/lib/ld-linux-*.so.* \
              "$root"/lib/ld-linux-*.so.* "$root"/usr/lib/*/ld-linux-*.so.* "$root"/lib/*/ld-linux-*.so.*; do
    # Links among them may be absolute: only one that resolves inside counts.
    [[ -f $path && $(readlink -f "$path") == "$root"/* ]] && { loader=$path; break; }
  done
  [[ -n $loader ]] || die "no loader in $root"
  for d in "$root"/usr/lib/*-linux-gnu* "$root"/lib/*-linux-gnu* "$root"/usr/lib/mysql/private \
           "$root"/usr/lib/mysql-router "$root"/usr/lib/*-linux-gnu*/mysql-router "$root"/usr/lib/mysqlrouter/plugin; do
    [[ -d $d ]] && libs+=${libs:+:}$d
  done
  local share=$root/usr/share/mysql plugins=$root/usr/lib/mysql/plugin
  local bin=$root/bin.new
  rm -rf "$bin"; mkdir -p "$bin"
  wrapper() { # wrapper NAME PROGRAM BODY
    { printf '#!/bin/sh\n%s\nexec %q --library-path %q %q "$@"\n' "$3" "$loader" "$libs" "$2"; } >"$bin/$1"
    chmod 755 "$bin/$1"
  }
  body=$(user_and_defaults "$(printf 'set -- --basedir=%q --plugin-dir=%q --lc-messages-dir=%q --character-sets-dir=%q --secure-file-priv=NULL "$@"' \
    "$root/usr" "$plugins" "$share" "$share/charsets")")
  wrapper mysqld "$root/usr/sbin/mysqld" "$body"
  # One clock is faked, not the one that nobody can set; what the library would do by
  # itself to waits that go by that one keeps them spinning. --preload and not
  # LD_PRELOAD: this root's library is for this root's C library only.
  for path in "$root"/usr/lib/*-linux-gnu*/faketime/libfaketimeMT.so.1; do
    [[ -f $path ]] || continue
    { printf '#!/bin/sh\n%s\n' "$body"
      printf 'export FAKETIME_TIMESTAMP_FILE="$PWD/clock" FAKETIME_CACHE_DURATION=1 FAKETIME_DISABLE_SHM=1 FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_FORCE_MONOTONIC_FIX=0\n'
      printf 'exec %q --preload %q --library-path %q %q "$@"\n' "$loader" "$path" "$libs" "$root/usr/sbin/mysqld"; } >"$bin/mysqld-clock"
    chmod 755 "$bin/mysqld-clock"
  done
  for path in "$root"/usr/bin/mysql* "$root"/usr/bin/sysbench "$root"/usr/bin/my_print_defaults "$root"/usr/bin/perror \
              "$root"/usr/sbin/mysql* "$root"/usr/bin/ibd2sdi "$root"/usr/bin/innochecksum \
              "$root"/usr/lib/mysql-test/bin/mysql* "$root"/usr/lib/mysql/bin/mysql*; do
    [[ -f $path && -x $path ]] || continue
    [[ $(head -c 4 "$path" | tail -c 3) == ELF ]] || continue
    p=$(basename "$path")
    [[ -e $bin/$p ]] && continue
    case $p in
      mysql|mysqldump|mysqladmin|mysqlbinlog|mysqlcheck|mysqlimport|mysqlshow|mysqlslap)
        # Client plugins (authentication) are looked for in the private root.
        body=$(printf 'first=\ncase ${1-} in --defaults-*|--no-defaults|--print-defaults|--login-path=*) first=$1; shift ;; esac\nset -- --character-sets-dir=%q%s "$@"\n[ -n "$first" ] && set -- "$first" "$@"' \
          "$share/charsets" "$([[ $p == mysqlbinlog || $p == mysqlslap || $p == mysqlimport || $p == mysqlshow ]] || printf ' --plugin-dir=%q' "$plugins")") ;;
      sysbench)
        body=$(printf 'export LUA_PATH=%q\n[ -n "${MARIADB_PLUGIN_DIR-}" ] || export MARIADB_PLUGIN_DIR=%q' \
          "$root/usr/share/sysbench/?.lua;./?.lua;;" "$(echo "$root"/usr/lib/*-linux-gnu*/libmariadb3/plugin)") ;;
      *) body= ;;
    esac
    wrapper "$p" "$path" "$body"
  done
  {
    printf 'VERSION=%q\nBASEDIR=%q\nPLUGIN_DIR=%q\nLC_MESSAGES_DIR=%q\nCHARACTER_SETS_DIR=%q\n' \
      "$(version_of "$bin/mysqld")" "$root/usr" "$plugins" "$share" "$share/charsets"
    for d in "$root"/usr/lib/mysql-test "$root"/usr/share/mysql/mysql-test "$root"/usr/share/mysql-test; do
      [[ -d $d ]] && { printf 'MYSQL_TEST_DIR=%q\n' "$d"; break; }
    done || true
  } >"$root/info.new"
  grep -q '^VERSION=.*[0-9]' "$root/info.new" || die "the fetched server does not run: $("$bin/mysqld" --version 2>&1 | head -n 2)"
  mv -f "$root/info.new" "$root/info" # others may read it at any moment
  # Wrappers in use keep their inode; a swap of directories would have a gap.
  mkdir -p "$root/bin"
  for path in "$bin"/*; do mv -f "$path" "$root/bin/"; done
  rmdir "$bin"
}

# ---------------------------------------------------------------- main

found=$(find_server) || exit 1
if [[ -n $found && " ${want[*]-} " == *" clock "* ]]; then die "--with clock goes with a fetched server only, and $found is used"; fi
if [[ -n $found ]]; then wrap_found "$found"; exit 0; fi
bin=$(current)
if [[ -n $refresh || -z $bin ]] || ! complete "$bin"; then bin=$(fetch) || exit 1; fi
emit "$bin"
