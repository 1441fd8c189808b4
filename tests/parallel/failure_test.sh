#!/usr/bin/env bash
# One rank throws, calls exit(0) or is killed in mid-run: the job ends within 5 seconds, not with 0, and whoever can
# still speak has said why. usage: failure_test.sh MPIEXEC FAILURE_PROGRAM
set -u
mpiexec=$1 program=$2 failed=0
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
output=$(mktemp)
trap 'rm -f "$output"' EXIT

fail() {
  echo "FAILED: $*"
  sed 's/^/    /' "$output"
  failed=1
}

# expect HOW CODE TEXT: runs 3 ranks; CODE is the job's exit code (any for not 0), TEXT a pattern of its output.
expect() {
  local how=$1 code=$2 text=$3 start end got
  start=$(date +%s%N)
  timeout --kill-after=5 20 "$mpiexec" -n 3 --oversubscribe --bind-to none "$program" "$how" > "$output" 2>&1
  got=$?
  end=$(date +%s%N)
  local ms=$(((end - start) / 1000000))
  [ "$got" -ne 0 ] || fail "$how: the job returned 0"
  [ "$code" = any ] || [ "$got" -eq "$code" ] || fail "$how: exit code $got, not $code"
  [ "$ms" -lt 5000 ] || fail "$how: $ms ms"
  grep -q -- "$text" "$output" || fail "$how: no line '$text'"
  echo "$how: exit code $got after $ms ms"
}

expect throw 10 '^failure_program: rank 1: read data: shard 7 is gone; copy it again (exit 10)'
expect exit 13 '^failure_program: rank 1: reduce gradients: left without finishing (exit(0) in mid-run)'
expect unwind 13 '^failure_program: rank 1: reduce gradients: left without finishing (an exception'
expect mismatch 13 '^failure_program: rank 1: hand over: rank 1 of 3: exchange: receive from rank 0 of 262144 bytes failed'
expect kill any 'signal 9'

# Launched by one MPI and linked with another: every process sees a world of one, and says so with 15.
unset OMPI_COMM_WORLD_SIZE OMPI_COMM_WORLD_RANK
PMI_SIZE=4 PMI_RANK=2 timeout 20 "$program" start > "$output" 2>&1
[ $? -eq 15 ] || fail "mismatch: not exit code 15"
grep -q 'launched by the mpirun of MPICH or Intel MPI with 4 ranks, linked with Open MPI .* which sees 1 rank' "$output" ||
  fail "mismatch: no message"

# Started by hand: one ordinary rank.
timeout 20 "$program" start > "$output" 2>&1 || fail "one rank without mpirun"
exit $failed
