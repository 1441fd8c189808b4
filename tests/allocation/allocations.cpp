#include "tests/allocation/allocations.h"

#include <dlfcn.h>
#include <link.h>
#include <malloc.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <new>

// glibc's own functions under the names that stay when malloc is replaced.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
}

namespace graingrad::test {
namespace {

// Where the executable and the C library lie. Test code that replaces malloc can only reach what is global.
struct Range {
  std::uintptr_t first = 0, last = 0;
  bool holds(std::uintptr_t address) const { return first <= address && address < last; }
};
Range executable, c_library;
std::uintptr_t executable_base = 0;
std::atomic<bool> counting{false};
std::atomic<std::int64_t> own{0}, libc{0}, libraries{0}, library_bytes{0};
std::atomic<std::uint64_t> last_own{0};

Range range_of(const dl_phdr_info& info) {
  Range range{~std::uintptr_t{0}, 0};
  for (int i = 0; i < info.dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = info.dlpi_phdr[i];
    if (header.p_type != PT_LOAD) continue;
    const std::uintptr_t first = info.dlpi_addr + header.p_vaddr;
    if (first < range.first) range.first = first;
    if (first + header.p_memsz > range.last) range.last = first + header.p_memsz;
  }
  return range;
}

int find_modules(dl_phdr_info* info, std::size_t, void*) {
  if (info->dlpi_name == nullptr || info->dlpi_name[0] == '\0') {
    if (executable.last == 0) {
      executable = range_of(*info);
      executable_base = info->dlpi_addr;
    }
  } else if (std::strstr(info->dlpi_name, "/libc.so") != nullptr) {
    c_library = range_of(*info);
  }
  return 0;
}

void count(std::size_t bytes, const void* caller) {
  if (!counting.load(std::memory_order_relaxed)) return;
  const auto address = reinterpret_cast<std::uintptr_t>(caller);
  if (executable.holds(address)) {
    own.fetch_add(1, std::memory_order_relaxed);
    last_own.store(address - executable_base, std::memory_order_relaxed);
  } else if (c_library.holds(address)) {
    libc.fetch_add(1, std::memory_order_relaxed);
  } else {
    libraries.fetch_add(1, std::memory_order_relaxed);
    library_bytes.fetch_add(static_cast<std::int64_t>(bytes), std::memory_order_relaxed);
  }
}

}  // namespace

void begin_counting() {
  dl_iterate_phdr(find_modules, nullptr);
  counting = true;
}

Allocations allocations() { return {own, libc, libraries, library_bytes}; }

std::uint64_t last_own_address() { return last_own; }

}  // namespace graingrad::test

extern "C" {

void* malloc(std::size_t bytes) {
  graingrad::test::count(bytes, __builtin_return_address(0));
  return __libc_malloc(bytes);
}

void* calloc(std::size_t count, std::size_t bytes) {
  graingrad::test::count(count * bytes, __builtin_return_address(0));
  return __libc_calloc(count, bytes);
}

void* realloc(void* old, std::size_t bytes) {
  graingrad::test::count(bytes, __builtin_return_address(0));
  return __libc_realloc(old, bytes);
}

void* memalign(std::size_t alignment, std::size_t bytes) {
  graingrad::test::count(bytes, __builtin_return_address(0));
  return __libc_memalign(alignment, bytes);
}

void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  graingrad::test::count(bytes, __builtin_return_address(0));
  return __libc_memalign(alignment, bytes);
}

int posix_memalign(void** result, std::size_t alignment, std::size_t bytes) {
  graingrad::test::count(bytes, __builtin_return_address(0));
  *result = __libc_memalign(alignment, bytes);
  return *result == nullptr ? ENOMEM : 0;
}

}  // extern "C"

// So that last_own_address() is the caller's and not operator new's.
void* operator new(std::size_t bytes) {
  graingrad::test::count(bytes, __builtin_return_address(0));
  if (void* const p = __libc_malloc(bytes == 0 ? 1 : bytes)) return p;
  throw std::bad_alloc();
}
