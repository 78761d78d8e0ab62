#!/bin/sh
# Start PostgreSQL as any uid: make the cluster at the first start, run the bootstrap SQL at every start.
#   PGDATA            where the data is (a volume)
#   POSTGRES_PASSWORD the superuser's password (at the first start; kept in step afterwards)
#   BOOTSTRAP_SQL     a file for psql, idempotent
set -eu
umask 077
run=/run/postgresql

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # A first start that was cut short leaves no version file: begin again.
    rm -rf "$PGDATA"
    printf '%s' "$POSTGRES_PASSWORD" > "$run/.password"
    initdb -D "$PGDATA" -U postgres --pwfile="$run/.password" -A scram-sha-256 -E UTF8 --locale=C.UTF-8 \
        --data-checksums --no-instructions > "$run/initdb.log" || { cat "$run/initdb.log"; exit 1; }
    rm -f "$run/.password"
fi
# A volume that is mounted again may come with permissions widened for its group (fsGroup); PostgreSQL refuses those.
chmod 0700 "$PGDATA"
cat > "$PGDATA/pg_hba.conf" <<HBA
local all postgres trust
host  all all 0.0.0.0/0 scram-sha-256
host  all all ::/0      scram-sha-256
HBA

serve() {
    exec postgres -D "$PGDATA" -k "$run" -c listen_addresses='*' -c max_connections=200 -c shared_buffers=128MB \
        -c wal_compression=on -c checkpoint_timeout=15min -c max_wal_size=2GB -c password_encryption=scram-sha-256 \
        -c log_checkpoints=off -c log_line_prefix='%m %u ' "$@"
}

# The bootstrap runs before anyone can connect from outside. Recovery after a crash may take its time.
pg_ctl -D "$PGDATA" -w -t 900 -s -o "-k $run -c listen_addresses=''" start
psql -X -q -v ON_ERROR_STOP=1 -h "$run" -U postgres -d postgres -v password="$POSTGRES_PASSWORD" <<'SQL'
ALTER ROLE postgres PASSWORD :'password';
SQL
if [ -n "${BOOTSTRAP_SQL:-}" ]; then
    psql -X -q -h "$run" -U postgres -d postgres -f "$BOOTSTRAP_SQL"
fi
pg_ctl -D "$PGDATA" -w -s -m fast stop
serve
