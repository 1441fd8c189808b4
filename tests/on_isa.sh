#!/bin/sh
# on_isa.sh ISA PROGRAM: runs PROGRAM where the CPU has the instruction set, else says so and leaves with 77 (skipped).
case $1 in
  avx512) needs="avx2 fma avx512f avx512bw avx512dq avx512vl" ;;
  avx2) needs="avx2 fma" ;;
  portable) needs="" ;;
  *) echo "on_isa.sh: no instruction set '$1'" >&2; exit 2 ;;
esac
flags=" $(sed -n 's/^flags[^:]*: //p' /proc/cpuinfo | head -1) "
for need in $needs; do
  case $flags in
    *" $need "*) ;;
    *) echo "skipped: this CPU has no $need"; exit 77 ;;
  esac
done
exec "$2"
