#!/bin/bash
# Starts PostgreSQL: initialises an empty PGDATA, runs the bootstrap SQL at every start before the first client is let
# in, and turns SIGTERM into a fast shutdown (PostgreSQL's own answer to it waits for all clients).
#
#   POSTGRES_PASSWORD  the administrator's password, set at every start (required)
#   BOOTSTRAP_SQL      files that psql runs at every start, in the order of their names; they must be repeatable
#                      and find their variables in the environment (\getenv). Default: /etc/mvno/*.sql
#   arguments          given to the server, as in: -c work_mem=8MB
set -euo pipefail

say() { printf '%s mvno-postgresql: %s\n' "$(date -u +%FT%TZ)" "$*" >&2; }

: "${PGDATA:?PGDATA is not set}"
if [[ -z "${POSTGRES_PASSWORD:-}" ]]; then
  say "the environment variable POSTGRES_PASSWORD is missing"
  exit 2
fi
socket=/var/run/postgresql
config=/etc/mvno-postgresql/postgresql.conf
umask 077

# One server a volume, whatever runs it; the lock ends with the container.
mkdir -p "$(dirname "$PGDATA")"
exec 9>"$(dirname "$PGDATA")/.lock"
if ! flock --timeout 30 9; then
  say "another server uses $PGDATA"
  exit 1
fi
# Ours alone now, so that a pid file is a dead server's, whose number may belong to another process in this container.
rm -f "$PGDATA/postmaster.pid"

server=
shutdown() {
  trap '' TERM INT
  say "stopping"
  if [[ -n "$server" ]]; then kill -INT "$server" 2>/dev/null || true; fi
  stopping=1
}
stopping=0
trap shutdown TERM INT

start() { # ARGUMENTS...
  postgres -D "$PGDATA" -c config_file="$config" -c unix_socket_directories="$socket" "$@" 9>&- &
  server=$!
}
finish() { # waits for the server, through signals; gives its exit code
  local code=0 late=0
  while kill -0 "$server" 2>/dev/null; do
    code=0
    wait "$server" || code=$?
  done
  # A signal ended the last wait, not the server: its own code is still to be had.
  if (( code > 128 )); then
    wait "$server" || late=$?
    if (( late != 127 )); then code=$late; fi
  fi
  return "$code"
}

if [[ ! -s "$PGDATA/PG_VERSION" ]]; then
  say "initialising $PGDATA"
  # Beside it and renamed, so that a start that was cut off leaves nothing half-made.
  rm -rf "$PGDATA.new"
  initdb --pgdata="$PGDATA.new" --username=postgres --encoding=UTF8 --locale=C.UTF-8 --data-checksums \
    --auth-local=peer --auth-host=scram-sha-256 9>&- >/dev/null
  if [[ -d "$PGDATA" ]]; then rmdir "$PGDATA"; fi
  mv "$PGDATA.new" "$PGDATA"
fi

# First without the network: nobody meets a database whose roles are not made yet.
start -c listen_addresses=
until pg_isready -q -h "$socket"; do
  if ! kill -0 "$server" 2>/dev/null; then
    finish || { say "the server did not start"; exit 1; }
    exit 0
  fi
  sleep 0.1
done
query=(psql --no-psqlrc --quiet --host "$socket" --username postgres --dbname postgres --set ON_ERROR_STOP=1)
failed=0
"${query[@]}" >/dev/null <<'SQL' || failed=1
\getenv password POSTGRES_PASSWORD
ALTER ROLE postgres PASSWORD :'password';
SQL
shopt -s nullglob
for file in ${BOOTSTRAP_SQL:-/etc/mvno/*.sql}; do
  if (( failed || stopping )); then break; fi
  say "running $file"
  "${query[@]}" --file "$file" >/dev/null || failed=1
done
kill -INT "$server" 2>/dev/null || true
finish || true
if (( failed && !stopping )); then
  say "the bootstrap failed; nobody was let in"
  exit 1
fi
if (( stopping )); then exit 0; fi

say "ready for clients"
start "$@"
if (( stopping )); then kill -INT "$server"; fi
code=0
finish || code=$?
say "stopped with code $code"
exit "$code"
