#!/usr/bin/env bash
# A throw-away one-node SLURM for tests: slurm-local.sh start|stop|restart-node|status FOLDER
#
# Needs root and `apt-get install --no-install-recommends slurm-wlm munge` (Debian, Ubuntu); touches nothing outside
# FOLDER. After `start`, clients need: export SLURM_CONF=FOLDER/slurm.conf
# Environment: SLURM_LOCAL_PORT (the first of two ports, 26917), SLURM_LOCAL_CPUS (as many as there are).
set -euo pipefail

[ $# -eq 2 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2; }
action=$1 root=$(mkdir -p "$2" && cd "$2" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
port=${SLURM_LOCAL_PORT:-26917}
host=$(hostname -s)
export SLURM_CONF=$root/slurm.conf PATH=$PATH:/usr/sbin

wait_until() {  # seconds, command: true once the command is
  local tries=$(($1 * 10))
  until "${@:2}" > /dev/null 2>&1; do
    ((tries-- > 0)) || return 1
    sleep 0.1
  done
}
idle() { [ "$(timeout 5 sinfo --noheader --format=%t)" = idle ]; }
gone() { ! grep -qs '^State:[[:space:]]*[^Z]' "/proc/$1/status"; }  # a zombie is gone

start() {
  mkdir -p "$root/state" "$root/spool"
  chmod 755 "$root"
  (umask 077 && head -c 128 /dev/urandom > "$root/munge.key")
  # --force: a key, a socket and a user that are not the system's
  munged --force --key-file="$root/munge.key" --socket="$root/munge.sock" --pid-file="$root/munged.pid" \
    --log-file="$root/munged.log" --seed-file="$root/munge.seed"
  local memory
  memory=$(awk '/^MemTotal/ {print int($2 / 1024) - 512}' /proc/meminfo)
  sed -e "s#@ROOT@#$root#g; s#@HOST@#$host#g; s#@MEMORY@#$memory#; s#@CPUS@#${SLURM_LOCAL_CPUS:-$(env -u OMP_NUM_THREADS nproc)}#g" \
    -e "s#@CONTROL_PORT@#$port#; s#@NODE_PORT@#$((port + 1))#; s#@MAX_ARRAY@#${SLURM_LOCAL_MAX_ARRAY:-1001}#" \
    "$here/slurm.conf.in" > "$SLURM_CONF"
  # nothing here uses cgroups, yet slurmd looks for one at its start and dies of mixed hierarchies
  echo CgroupPlugin=cgroup/v1 > "$root/cgroup.conf"
  slurmctld
  slurmd
  wait_until 20 idle || { echo "the node did not come up; see $root/*.log" >&2; stop; exit 1; }
  echo "export SLURM_CONF=$SLURM_CONF"
}

stop() {
  timeout 10 scancel --user=root > /dev/null 2>&1 || true  # or steps outlive their slurmd
  wait_until 10 no_jobs || true
  for daemon in slurmd slurmctld munged; do
    local pid
    pid=$(cat "$root/$daemon.pid" 2> /dev/null) || continue
    [ "$(cat "/proc/$pid/comm" 2> /dev/null)" = "$daemon" ] || continue
    # munged takes seconds to leave, and has nothing to save
    if [ "$daemon" = munged ]; then kill -KILL "$pid"; else kill "$pid"; fi
    wait_until 10 gone "$pid" || kill -KILL "$pid"
  done
}
no_jobs() { [ -z "$(timeout 5 squeue --noheader)" ]; }

restart_node() { slurmd; wait_until 20 ready; }
ready() { timeout 5 sinfo --noheader --format=%t | grep -qE '^(idle|mix|alloc)$'; }

case $action in
  start) start ;;
  stop) stop ;;
  restart-node) restart_node ;;
  status) sinfo; squeue --array ;;
  *) echo "unknown action $action; one of start, stop, restart-node, status" >&2; exit 2 ;;
esac
