#!/bin/sh
# kernel_registers.sh OBJDUMP KERNELS: no block of a product in KERNELS moves a vector register to or from the stack, where
# its sums would be if a compiler gave up on keeping them in registers; and no function that works on whole registers leaves
# their upper halves in use, but for those that pass vectors.
set -eu
listing=$("$1" --disassemble --demangle --no-show-raw-insn "$2" | awk '
  / <.*>:$/ { name = ""; if (/ register_block<|::register_block</) { name = $0; ++blocks } }
  name != "" && /[yz]mm/ && /\(%r[sb]p/ { print name; print }
  END { print "blocks: " blocks + 0 }')
case $listing in
  "blocks: 0") echo "$2 has no register_block: this check would see nothing"; exit 1 ;;
  blocks:*) ;;
  *) printf 'vector registers go through the stack:\n%s\n' "$listing"; exit 1 ;;
esac
listing=$("$1" --disassemble --demangle --no-show-raw-insn "$2" | awk '
  function judge() { if (uses && !clears && returns && name !~ /__vector|::Real|::Bits/) print name; uses = clears = returns = 0 }
  / <.*>:$/ { judge(); name = $0 }
  /%[yz]mm([0-9]|1[0-5])([^0-9]|$)/ { uses = 1; ++seen }
  /vzeroupper/ { clears = 1 }
  /\tret/ { returns = 1 }
  END { judge(); if (!seen) print "no function with whole registers: this check would see nothing" }')
[ -z "$listing" ] || { printf 'upper halves of vector registers are left in use:\n%s\n' "$listing"; exit 1; }
