#!/bin/sh
# kernel_names.sh NM OBJECT NAME: an instruction set's kernels show the linker one name, NAME, and no inline function
# or variable that another set's could be merged with.
set -eu
names=$("$1" --defined-only --extern-only --format=posix "$2" | cut -d' ' -f1)
if [ "$names" != "$3" ]; then
  echo "kernel_names: $2 shows the linker these names, and should only show $3:" >&2
  echo "$names" >&2
  exit 1
fi
inner=$("$1" --defined-only "$2" | wc -l)
echo "$2: $3, and $inner names inside"
[ "$inner" -gt 100 ]  # else it is not the object with the kernels
