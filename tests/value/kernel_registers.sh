#!/bin/sh
# kernel_registers.sh OBJDUMP KERNELS: no block of a product in KERNELS moves a vector register to or from the stack, where
# its sums would be if a compiler gave up on keeping them in registers.
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
