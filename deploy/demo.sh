#!/bin/sh
# Shows what coffer does, with the real binaries, from a fresh clone. Needs Rust, a C compiler and a POSIX system.
# Everything happens in a temporary directory, which is removed at the end and on Ctrl-C; nothing listens on a port.
#
# With --etcd: on three servers over an etcd of three members, one of each killed in the middle. etcd listens on ports of
# this machine only.
set -eu
cd "$(dirname "$0")/.."

case "${1:-}" in
  '') etcd='' ;;
  --etcd) etcd=yes ;;
  *) echo "usage: deploy/demo.sh [--etcd]" >&2; exit 64 ;;
esac
[ -z "$etcd" ] || command -v etcd >/dev/null || { echo "etcd is not installed: on Debian, apt-get install etcd-server" >&2; exit 1; }

server='' workload='' members='' dir=''
clean_up() {
  status=$?
  trap - EXIT INT TERM HUP
  # An injector that stays is told, so that it takes its command along.
  [ -z "$workload" ] || { kill "$workload" 2>/dev/null && wait "$workload" 2>/dev/null || :; }
  for pid in $server $members; do kill -9 "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || :; done
  [ -z "$dir" ] || rm -rf "$dir"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

chapter() { printf '\n== %s\n' "$*"; }
say() { printf '\n# %s\n' "$*"; }
fail() { printf '\ndemo failed: %s\n' "$*" >&2; exit 1; }

# Prints a command line as a user would type it, runs it, and prints what it prints.
show() {
  printf '$ %s\n' "$1"
  if output="$(eval "$1" 2>&1)"; then code=0; else code=$?; fi
  [ -z "$output" ] || printf '%s\n' "$output"
}
# The same for a command that must succeed.
run() { show "$1"; [ "$code" = 0 ] || fail "exit code $code"; }
# The same without its output, where a chapter has many of a kind.
quietly() {
  printf '$ %s\n' "$1"
  output="$(eval "$1" 2>&1)" || fail "$output"
}
# What the last output must, or must not, hold: a demo that lies is worse than none.
expect() { case "$output" in *"$1"*) ;; *) fail "expected: $1" ;; esac; }
expect_not() { case "$output" in *"$1"*) fail "not expected: $1" ;; esac; }
# Who calls from now on.
as() { COFFER_TOKEN_FILE="$1.token"; export COFFER_TOKEN_FILE; printf '$ export COFFER_TOKEN_FILE=%s.token\n' "$1"; }

chapter "Build (a debug build: it is the quicker one)"
cargo build --locked --quiet --workspace --bins
target="$(cargo metadata --locked --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')"
PATH="$target/debug:$PATH"
export PATH
# Whoever uses coffer already has variables of their own.
for name in $(env | sed -n 's/^\(COFFER_[A-Z_]*\)=.*/\1/p'); do unset "$name"; done

# A unix socket's path must be short, which a TMPDIR need not be.
base="${TMPDIR:-/tmp}"
[ "${#base}" -lt 70 ] || base=/tmp
dir="$(mktemp -d "$base/coffer-demo.XXXXXX")"
cd "$dir"

start_server() {
  rm -f address
  # What it logs would be in the way of the transcript; the last chapter looks at it.
  coffer-server run --data data --key-file root.key --listen "unix:$dir/coffer.sock" --address-file address \
    --audit-file audit.log 2>>server.log &
  server=$!
  while [ ! -s address ]; do
    kill -0 "$server" 2>/dev/null || { cat server.log >&2; fail "the server did not start"; }
    sleep 0.1 2>/dev/null || sleep 1
  done
}

# Waits until a file says so, or a process has ended.
until_said() { # FILE TEXT PID
  until grep -q "$2" "$1" 2>/dev/null; do
    kill -0 "$3" 2>/dev/null || return 1
    sleep 0.1 2>/dev/null || sleep 1
  done
}

# Three members on ports that nobody has; others if somebody does.
start_etcd() {
  for try in 1 2 3 4 5 6 7 8; do
    port=$((20000 + ($$ * 7 + try * 97) % 20000))
    cluster="m1=http://127.0.0.1:$((port + 1)),m2=http://127.0.0.1:$((port + 3)),m3=http://127.0.0.1:$((port + 5))"
    for n in 1 2 3; do
      client="http://127.0.0.1:$((port + 2 * n - 2))" peer="http://127.0.0.1:$((port + 2 * n - 1))"
      etcd --name "m$n" --data-dir "etcd-$n-$try" --initial-cluster "$cluster" --auto-compaction-retention 1h \
        --listen-client-urls "$client" --advertise-client-urls "$client" \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" >"etcd-$n.log" 2>&1 &
      members="$members $!"
    done
    n=0
    for pid in $members; do
      n=$((n + 1))
      until_said "etcd-$n.log" 'ready to serve client requests' "$pid" || { n=0; break; }
    done
    [ "$n" = 0 ] || break
    for pid in $members; do kill -9 "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || :; done
    members=''
  done
  [ -n "$members" ] || fail "etcd does not start"
}

# One of the three servers, by its number.
start_replica() {
  rm -f "address$1"
  coffer-server run --config coffer.toml --listen "unix:$dir/coffer$1.sock" --address-file "address$1" \
    --audit-file "audit$1.log" 2>>server.log &
  server="$server $!"
  until [ -s "address$1" ]; do
    kill -0 "$!" 2>/dev/null || { cat server.log >&2; fail "a server did not start"; }
    sleep 0.1 2>/dev/null || sleep 1
  done
}

if [ -z "$etcd" ]; then
  chapter "Start: a store, its key, the first token, and the server"
  run 'coffer-server init --data data --key-file root.key --generate-key --token-file operator.token'
  printf '$ coffer-server run --data data --key-file root.key --listen unix:$PWD/coffer.sock --address-file address --audit-file audit.log &\n'
  start_server
  run 'ls -l root.key operator.token | cut -c1-10'
  COFFER_ADDRESS="unix://$dir/coffer.sock"
  printf '$ export COFFER_ADDRESS=unix://$PWD/coffer.sock\n'
else
  chapter "Start: an etcd of three members, a store in it, and three servers"
  start_etcd
  cat >coffer.toml <<TOML
store = "etcd"
key_file = "root.key"
[etcd]
endpoints = ["http://127.0.0.1:$port", "http://127.0.0.1:$((port + 2))", "http://127.0.0.1:$((port + 4))"]
TOML
  run 'cat coffer.toml'
  run 'coffer-server init --config coffer.toml --generate-key --audit-file audit1.log --token-file operator.token'
  for n in 1 2 3; do
    printf '$ coffer-server run --config coffer.toml --listen unix:$PWD/coffer%s.sock --audit-file audit%s.log &\n' "$n" "$n"
    start_replica "$n"
  done
  COFFER_ADDRESS="unix://$dir/coffer1.sock,unix://$dir/coffer2.sock,unix://$dir/coffer3.sock"
  printf '$ export COFFER_ADDRESS=unix://$PWD/coffer1.sock,unix://$PWD/coffer2.sock,unix://$PWD/coffer3.sock\n'
fi
export COFFER_ADDRESS

chapter "People: the operator lets each of them manage one scope and nothing else"
as operator
quietly 'coffer grant create users/olga  secrets:manage organizations/acme'
quietly 'coffer grant create users/wendy secrets:manage organizations/acme/workspaces/web'
quietly 'coffer grant create users/pat   secrets:manage projects/shop'
quietly 'coffer grant create users/pat   secrets:manage projects/shop/environments/production'
quietly 'coffer grant create users/pat   secrets:manage projects/blog'
say "ann needs no grant: accounts/ann is hers. The platform's service may start workloads."
for pattern in organizations/acme/workspaces/- projects/- projects/-/environments/- accounts/- accounts/-/plugins/-; do
  quietly "coffer grant create services/platform workloads:issue $pattern"
done
for principal in users/olga users/wendy users/pat users/ann services/platform; do
  run "coffer token issue $principal --out ${principal#*/}.token"
done

chapter "An organization's secrets: one for every workspace, one shared with web and not with lab"
as olga
run 'printf sk-live-4242424242424242wxyz | coffer secret create organizations/acme/secrets/OPENAI_API_KEY --description "Paid by the company"'
run 'printf acme-internal-token-0123456789 | coffer secret create organizations/acme/secrets/REGISTRY_TOKEN --share-with web'

chapter "A workspace's secret over the organization's"
as wendy
run 'printf sk-web-own-key-9876543210abcd | coffer secret create organizations/acme/workspaces/web/secrets/OPENAI_API_KEY'
say "wendy sees what her workspace receives, and of the organization's secrets their names only."
run 'coffer environment describe organizations/acme/workspaces/web'
expect OPENAI_API_KEY; expect REGISTRY_TOKEN; expect_not 'sk-l'

chapter "A project's secret, and a production value over it"
as pat
run 'printf postgres://dev@localhost/shop | coffer secret create projects/shop/secrets/DATABASE_URL --description "Ask pat for access"'
run 'coffer secret create projects/shop/secrets/SESSION_KEY --generate'
run 'printf postgres://shop:hunter2@db.internal/shop | coffer secret create projects/shop/environments/production/secrets/DATABASE_URL'

chapter "A plugin's plain and encrypted variables, and an account's secret"
as ann
run 'printf ghp_0123456789abcdefghijABCDEFGHIJ | coffer secret create accounts/ann/plugins/github/secrets/GITHUB_API_TOKEN'
run 'printf eu-west-1 | coffer secret create accounts/ann/plugins/github/secrets/REGION --plain'
run 'printf metric | coffer secret create accounts/ann/plugins/weather/secrets/UNITS --plain'
run 'printf AAAAAAAAAAAAAAAAAAAAAXXXXXXXXXXXX | coffer secret create accounts/ann/secrets/X_BEARER_TOKEN --description "X API, for search"'

chapter "Lists: plain values shown, encrypted ones masked, with a hint and totals"
run 'coffer secret list accounts/ann/plugins/-'
expect eu-west-1; expect GITHUB_API_TOKEN; expect_not ghp_0123456789
run 'coffer secret stats accounts/ann/plugins/-'
as pat
run 'coffer secret list projects/shop'
expect_not 'dev@localhost'

chapter "A clone: same name, same value, never shown"
run 'coffer secret clone projects/shop/secrets/SESSION_KEY projects/blog'
run 'coffer secret list projects/blog'
expect SESSION_KEY

chapter "Workloads: each gets exactly its own, as environment variables"
say "The platform gives each workload a token of its own; the injector does the rest and becomes the command."
say "This one prints its environment, without what the shell itself brings along."
cat >app <<'APP'
#!/bin/sh
env | grep -v -e '^PATH=' -e '^PWD=' -e '^OLDPWD=' -e '^SHLVL=' -e '^_=' | sort
APP
chmod +x app
run 'cat app'
for workload_name in \
  organizations/acme/workspaces/web/servers/s1 organizations/acme/workspaces/lab/servers/s1 \
  projects/shop/servers/s1 projects/shop/environments/production/servers/s1 projects/blog/servers/s1 \
  accounts/ann/sandboxes/s1 accounts/ann/plugins/github/servers/s1
do
  printf '\n'
  as platform
  run "coffer token issue $workload_name --ttl 1h --out workload.token --replace"
  as workload
  # This shell's own variables would hide what the workload was given.
  printf '$ coffer-inject -- ./app\n'
  output="$(env -i PATH="$PATH" COFFER_ADDRESS="$COFFER_ADDRESS" COFFER_TOKEN_FILE="$COFFER_TOKEN_FILE" \
    coffer-inject -- ./app)" || fail "the workload was not started"
  printf '%s\n' "$output"
  expect_not COFFER_
  case "$workload_name" in
    */workspaces/web/*) expect OPENAI_API_KEY=sk-web; expect REGISTRY_TOKEN=acme ;;
    */workspaces/lab/*) expect OPENAI_API_KEY=sk-live; expect_not REGISTRY_TOKEN ;;
    */production/*) expect hunter2; expect SESSION_KEY= ;;
    projects/shop/*) expect dev@localhost; expect SESSION_KEY= ;;
    projects/blog/*) expect SESSION_KEY=; expect_not DATABASE_URL ;;
    */plugins/*) expect GITHUB_API_TOKEN=ghp_; expect REGION=; expect_not X_BEARER_TOKEN ;;
    accounts/*) expect X_BEARER_TOKEN=AAAA; expect_not GITHUB ;;
  esac
done

chapter "Refused: wendy asks for the organization's secrets, and pat for a workload's values"
as wendy
show 'coffer secret list organizations/acme'
[ "$code" = 77 ] || fail "exit code $code"
as pat
show 'coffer-inject --workload projects/shop/servers/s1 -- ./app'
[ "$code" = 77 ] || fail "exit code $code"

chapter "A changed value: the running workload keeps the old one, the restarted one has the new"
as platform
run 'coffer token issue projects/shop/servers/s1 --ttl 1h --out web.token'
mkfifo ask answer
cat >web <<'WEB'
#!/bin/sh
while read -r question; do echo "web: my DATABASE_URL is $DATABASE_URL"; done
WEB
chmod +x web
run 'cat web'
start_workload() {
  printf '$ COFFER_TOKEN_FILE=web.token coffer-inject -- ./web <ask >answer &\n'
  COFFER_TOKEN_FILE=web.token coffer-inject -- ./web <ask >answer &
  workload=$!
  exec 3>ask 4<answer
}
ask_workload() { printf '$ echo >ask; head -n 1 answer\n'; echo >&3; read -r output <&4; printf '%s\n' "$output"; }
start_workload
ask_workload; expect dev@localhost
as pat
run 'printf postgres://dev@newhost/shop | coffer secret update projects/shop/secrets/DATABASE_URL'
ask_workload; expect dev@localhost
exec 3>&- 4<&-
wait "$workload"; workload=''
say "It was stopped, and is started again:"
start_workload
ask_workload; expect dev@newhost
exec 3>&- 4<&-
wait "$workload"; workload=''

chapter "Tools: a header is resolved for the host it may go to, and for no other"
as operator
quietly 'coffer grant create services/agent secrets:inject projects/shop'
run 'coffer token issue services/agent --out agent.token'
as pat
run 'printf srch_4f9a8b7c6d5e4f3a2b1c0d9e | coffer secret create projects/shop/secrets/SEARCH_TOKEN --allow-host api.search.example'
as agent
run "coffer template render projects/shop/servers/s1 'Authorization: Bearer {{SEARCH_TOKEN}}' --sink header --host api.search.example"
expect 'Bearer srch_4f9a'
show "coffer template render projects/shop/servers/s1 'Authorization: Bearer {{SEARCH_TOKEN}}' --sink header --host evil.example"
[ "$code" = 1 ] || fail "exit code $code"
expect_not srch_
say "What a model will read may hold an encrypted secret only if its owner allows it:"
show "coffer template render projects/shop/servers/s1 'Search with {{SEARCH_TOKEN}}' --sink instruction"
[ "$code" = 1 ] || fail "exit code $code"
expect_not srch_

chapter "A transcript is cleaned without handing values out, however they were encoded"
printf 'The agent called with srch_4f9a8b7c6d5e4f3a2b1c0d9e,\nthat is %s in base64,\nand said hello.\n' \
  "$(printf user:srch_4f9a8b7c6d5e4f3a2b1c0d9e | base64)" >transcript
run 'cat transcript'
run 'coffer redact projects/shop/servers/s1 transcript'
expect '{{SEARCH_TOKEN}}'; expect hello; expect_not srch_; expect_not c3JjaF8

chapter "A tool refers to the secret: it cannot be deleted by mistake"
as pat
run "coffer reference set projects/shop/references/search --text 'Authorization: Bearer {{SEARCH_TOKEN}}' --description 'Search tool'"
show 'coffer secret delete projects/shop/secrets/SEARCH_TOKEN --yes'
[ "$code" = 1 ] || fail "exit code $code"
expect references/search

chapter "A publisher says what its plugin needs; a start without it is refused, and the owner sees why"
as operator
quietly 'coffer grant create services/publisher secrets:manage accounts/-/plugins/github'
run 'coffer token issue services/publisher --out publisher.token'
as publisher
run "coffer manifest set accounts/-/plugins/github/manifests/github --require GITHUB_API_TOKEN,GITHUB_ORG --optional REGION --describe GITHUB_ORG='whose repositories to read'"
as platform
run 'coffer token issue accounts/ann/plugins/github/servers/s1 --ttl 1h --out workload.token --replace'
show 'COFFER_TOKEN_FILE=workload.token coffer-inject -- ./app'
[ "$code" = 78 ] || fail "exit code $code"
expect GITHUB_ORG
as ann
run 'coffer scope health accounts/ann/plugins/github'
expect GITHUB_ORG

chapter "Supervised: coffer-inject restarts a workload by itself, and names who still needs a restart"
as platform
run 'coffer token issue projects/shop/servers/s2 --ttl 1h --single-use --out start.token'
cat >worker <<'WORKER'
#!/bin/sh
echo "worker: my SEARCH_TOKEN ends in ${SEARCH_TOKEN#"${SEARCH_TOKEN%????}"}"
while :; do sleep 1; done
WORKER
chmod +x worker
run 'cat worker'
mkfifo said
printf '$ COFFER_TOKEN_FILE=start.token coffer-inject --on-change restart -- ./worker >said &\n'
COFFER_TOKEN_FILE=start.token coffer-inject --on-change restart -- ./worker >said &
workload=$!
exec 5<said
listen() { printf '$ head -n 1 said\n'; read -r output <&5; printf '%s\n' "$output"; }
listen; expect 0d9e
say "Its start token was good once; a copy of it is worth nothing, and raises an alarm:"
show 'COFFER_TOKEN_FILE=start.token coffer-inject -- ./app'
[ "$code" = 77 ] || fail "exit code $code"
as pat
run 'printf srch_ffffffffffffffffffff2027 | coffer secret update projects/shop/secrets/SEARCH_TOKEN'
listen; expect 2027
say "s1 became its command and still runs with what it was started with; s2 has the new value already:"
# The injector tells of the restart once the command has what is new, which may be a moment after its first line.
tries=0
until coffer instances projects/shop | grep -q '2 workloads, 1 to be restarted' || [ "$tries" = 50 ]; do
  tries=$((tries + 1))
  sleep 0.1 2>/dev/null || sleep 1
done
run 'coffer instances projects/shop'
expect '2 workloads, 1 to be restarted'; expect SEARCH_TOKEN; expect 'presented again'
case "$output" in *servers/s1*required*servers/s2*no*) ;; *) fail 's1 and only s1 must be restarted' ;; esac
kill "$workload"
wait "$workload" || :
workload=''
exec 5<&-

if [ -z "$etcd" ]; then
  chapter "kill -9 of the server: everything acknowledged is still there"
  printf '$ kill -9 %s\n' '$SERVER_PID'
  kill -9 "$server"
  wait "$server" 2>/dev/null || :
  printf '$ coffer-server run --data data --key-file root.key …  &\n'
  start_server
else
  chapter "kill -9 of a server and of etcd's leader: everything acknowledged is still there, and it goes on"
  # Who became the leader last said so.
  leader="$(grep -H 'became leader at term' etcd-[123].log | sed 's/.*etcd-\([123]\).log.*term \([0-9]*\).*/\2 \1/' | sort -n | tail -n 1 | cut -d' ' -f2)"
  [ -n "$leader" ] || fail "no leader of etcd"
  set -- $members
  eval "pid=\${$leader}"
  printf '$ kill -9 %s   # member m%s of etcd, the leader\n' '$LEADER_PID' "$leader"
  kill -9 "$pid"; wait "$pid" 2>/dev/null || :
  set -- $server
  printf '$ kill -9 %s   # the first server\n' '$SERVER_PID'
  kill -9 "$1"; wait "$1" 2>/dev/null || :
  server="$2 $3"
fi
as pat
# Another leader is chosen within a second or two; until then nothing is acknowledged.
tries=0
until [ -z "$etcd" ] || [ "$tries" = 100 ] || coffer secret list projects/shop >/dev/null 2>&1; do
  tries=$((tries + 1))
  sleep 0.2 2>/dev/null || sleep 1
done
run 'coffer secret list projects/shop'
expect DATABASE_URL; expect SESSION_KEY
run 'echo | COFFER_TOKEN_FILE=web.token coffer-inject -- ./web'
expect dev@newhost

chapter "An operator: backup, rotated keys, a verified audit log, and the past restored"
as operator
run 'coffer store backup shop.backup'
run 'coffer-server verify --key-file root.key shop.backup'
run 'coffer key rotate data'
run 'coffer key rotate root'
run 'coffer store status'
if [ -z "$etcd" ]; then log='--data data --audit-file audit.log' one=audit.log; else log='--audit-file audit2.log' one=audit2.log; fi
run "coffer-server audit verify $log --key-file root.key"
run "coffer-server audit show $log --principal users/pat"
say "A secret is deleted by mistake, and somebody edits the audit log:"
as pat
run 'coffer secret delete projects/blog/secrets/SESSION_KEY --yes'
run "sed 's,users/pat,users/eve,' $one >edited.log; coffer-server audit verify --key-file root.key edited.log || echo \"exit code \$?\""
expect 'exit code 1'
say "The backup becomes a store in a directory of its own. No token of before is good there: the operator makes a new one."
for pid in $server; do kill "$pid"; wait "$pid" 2>/dev/null || :; done
run 'coffer-server restore --data restored shop.backup'
run 'coffer-server operator --data restored --key-file root.key --audit-file audit.log --token-file restored.token'
if [ -z "$etcd" ]; then mv data lost; else set -- etcd-*-*; mkdir lost; mv "$@" lost; fi
mv restored data
start_server
COFFER_ADDRESS="unix://$dir/coffer.sock"
show 'coffer secret list projects/blog'
[ "$code" = 77 ] || fail "exit code $code"
as restored
run 'coffer token issue users/pat --out pat.token --replace'
as pat
run 'coffer secret list projects/blog'
expect SESSION_KEY

chapter "At rest: no value in the store, the audit log or the server's log"
run 'grep -r -l -e hunter2 -e sk-live -e ghp_ -e newhost -e srch_ data lost shop.backup audit*.log server.log || echo "found nowhere"'
expect 'found nowhere'
run 'tail -n 1 audit.log'

chapter "Done"
