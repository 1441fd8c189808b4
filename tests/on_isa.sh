#!/usr/bin/env bash
# on_isa.sh ISA PROGRAM: runs PROGRAM where the CPU has the instruction set, else says so and leaves with 77 (skipped).
. "$(dirname "${BASH_SOURCE[0]}")/../apps/support/setup.sh"
gg_has_isa "$1"
case $? in
  0) exec "$2" ;;
  1) echo "skipped: this CPU has no $1"; exit 77 ;;
  *) exit 2 ;;
esac
