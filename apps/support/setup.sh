# What apps/demo and tests/run share: the packages, the cores this shell may use, and how to start mpirun here.
# Sourced by bash, from the repository's root. All names begin with gg_.

GG_PACKAGES="g++ cmake ninja-build libopenmpi-dev openmpi-bin libeigen3-dev libcli11-dev nlohmann-json3-dev libfmt-dev libxxhash-dev"
GG_TEST_PACKAGES="libgtest-dev libgmock-dev libbenchmark-dev strace python3 python3-matplotlib python3-numpy"

# gg_install PACKAGE...: installs what is missing with apt, as root or through sudo that asks nothing; otherwise
# prints the line to type and fails.
gg_install() {
  local missing=() package
  if ! command -v dpkg-query >/dev/null; then
    echo "no dpkg here: taking these Debian packages (or their likes) as installed: $*" >&2
    return 0
  fi
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  local as=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then
      echo "missing packages; install them with: sudo apt-get install ${missing[*]}" >&2
      return 1
    fi
    as=(sudo)
  fi
  echo "installing: ${missing[*]}" >&2
  local apt=("${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get)
  "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >&2 && return 0
  # The package lists may be absent or old.
  "${apt[@]}" update >&2 && "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >&2 && return 0
  echo "apt-get could not install: ${missing[*]}; install them by hand and run this again" >&2
  return 1
}

# The CPUs of this shell's affinity mask, one a line (nproc would print OMP_NUM_THREADS where that is set).
gg_cpus() {
  local list part
  list=$(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status)
  for part in ${list//,/ }; do seq "${part%-*}" "${part#*-}"; done
}

# CPUs' worth of time that the control group leaves us, rounded down, at least 1; empty where there is no limit.
gg_quota() {
  local quota='' period=''
  if [ -r /sys/fs/cgroup/cpu.max ]; then
    read -r quota period </sys/fs/cgroup/cpu.max
  elif [ -r /sys/fs/cgroup/cpu/cpu.cfs_quota_us ]; then
    quota=$(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us)
    period=$(cat /sys/fs/cgroup/cpu/cpu.cfs_period_us)
  fi
  case $quota in '' | max | -*) return 0 ;; esac
  [ "$quota" -lt "$period" ] && quota=$period
  echo $((quota / period))
}

# CPUs to build and test with: the affinity mask, at most the quota.
gg_parallelism() {
  local count quota
  count=$(gg_cpus | wc -l)
  quota=$(gg_quota)
  [ -n "$quota" ] && [ "$quota" -lt "$count" ] && count=$quota
  echo "$count"
}

# Physical cores among them: mpirun binds to cores, and two hardware threads of one core are one.
gg_cores() {
  local cpu file
  for cpu in $(gg_cpus); do
    file=/sys/devices/system/cpu/cpu$cpu/topology/thread_siblings_list
    if [ -r "$file" ]; then cat "$file"; else echo "$cpu"; fi
  done | sort -u | wc -l
}

# gg_isa: the widest instruction set of GRAINGRAD_ISAS that this machine has.
gg_isa() {
  local isa
  for isa in avx512 avx2 portable; do
    if gg_has_isa "$isa"; then
      echo "$isa"
      return 0
    fi
  done
}

# gg_has_isa ISA: whether this machine has what the kernels of an instruction set are compiled for.
gg_has_isa() {
  local needs need flags
  case $1 in
    avx512) needs="avx2 fma avx512f avx512bw avx512dq avx512vl" ;;
    avx2) needs="avx2 fma" ;;
    portable) needs="" ;;
    *) echo "no instruction set '$1'" >&2; return 2 ;;
  esac
  flags=" $(sed -n 's/^flags[^:]*: //p' /proc/cpuinfo | head -n 1) "
  for need in $needs; do
    case $flags in *" $need "*) ;; *) return 1 ;; esac
  done
}

# gg_mpirun RANKS THREADS PROGRAM ARGUMENT...: mpirun with explicit binding; one core a thread where there are enough,
# else oversubscribed. As root, Open MPI wants to be told twice.
gg_mpirun() {
  local ranks=$1 threads=$2
  shift 2
  if [ "$(id -u)" -eq 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  fi
  if [ $((ranks * threads)) -le "$(gg_cores)" ]; then
    mpirun -n "$ranks" --map-by "slot:PE=$threads" --bind-to core "$@"
  else
    OMP_PROC_BIND=false OMP_WAIT_POLICY=passive mpirun -n "$ranks" --oversubscribe --bind-to none "$@"
  fi
}

# gg_python MODULE: the first python3 that can import the module; Debian's own where another one comes first in PATH.
gg_python() {
  local python
  for python in python3 /usr/bin/python3; do
    if "$python" -c "import $1" 2>/dev/null; then
      echo "$python"
      return 0
    fi
  done
  echo "no python3 here can import $1; install python3-$1" >&2
  return 1
}
