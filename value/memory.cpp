#include "value/memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

namespace graingrad {
namespace {

constexpr std::uintptr_t kHugePage = std::uintptr_t{2} << 20;

// Where the system cannot give huge pages, or gives none to those who ask, nothing changes.
void ask_for_huge_pages(std::byte* data, std::size_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t before = (kHugePage - begin % kHugePage) % kHugePage;
  if (before + kHugePage <= bytes)
    ::madvise(data + before, (bytes - before) / kHugePage * kHugePage, MADV_HUGEPAGE);
}

}  // namespace

AlignedBuffer::AlignedBuffer(std::size_t bytes) : bytes_(aligned(bytes)) {
  if (bytes_ == 0) return;
  data_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, bytes_)));
  if (data_ == nullptr) throw std::bad_alloc();
  ask_for_huge_pages(data_.get(), bytes_);
}

}  // namespace graingrad
