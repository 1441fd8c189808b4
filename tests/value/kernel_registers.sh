#!/bin/sh
# kernel_registers.sh OBJDUMP KERNELS: no block of a product in KERNELS moves a vector register to or from the stack, where
# its sums would be if a compiler gave up on keeping them in registers; and no function that works on whole registers leaves
# their upper halves in use, but for those that pass vectors.
set -eu
listing=$("$1" --disassemble --demangle --no-show-raw-insn "$2" | awk '
  function judge() {
    if (whole && !clears && returns && name !~ /__vector|::Real|::Bits/) print "leaves upper halves in use: " name
    whole = clears = returns = 0
  }
  / <.*>:$/ { judge(); name = $0; block = / register_block<|::register_block</; blocks += block; next }
  block && /[yz]mm/ && /\(%r[sb]p/ { print "a vector register goes through the stack: " name; print }
  /%[yz]mm([0-9]|1[0-5])([^0-9]|$)/ { whole = seen = 1 }
  /vzeroupper/ { clears = 1 }
  /\tret/ { returns = 1 }
  END {
    judge()
    if (!blocks || !seen) print "no register_block, or no function with whole registers: this check would see nothing"
  }')
[ -z "$listing" ] || { printf '%s:\n%s\n' "$2" "$listing"; exit 1; }
