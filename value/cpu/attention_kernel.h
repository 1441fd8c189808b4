// Causal multi-head attention on raw pointers, in blocks: never a sequence x sequence tensor.
#pragma once

#include <cstddef>
#include <cstdint>

#include "value/cpu/random_words.h"

namespace graingrad::cpu {

/// Dropout on the weights, after the softmax has normalised them: element (b, h, i, j) of the serial [B,
/// heads, T, T] tensor, in which this call's heads are those from `head` on. Masked elements have an index
/// too.
template <class T>
struct AttentionDropout {
  bool active = false;
  Dropout<T> mask;
  std::int64_t heads = 0, head = 0;
};

/// The forward pass. With B = batch, T = sequence, H = heads, S = head_dim:
///   qkv  [B * T, H * 3 * S]  for each head q, k, v side by side: head h has them at columns (h * 3 + 0, 1,
///   2) * S out  [B * T, H * S]      softmax(scale * q k^T) v, heads side by side lse  [B * H, T] log of the
///   sum of exp of the scaled scores, which the backward pass needs
/// all row-major and contiguous. With `causal`, row i sees keys 0 to i.
///
/// Contract: row i of a head is a function of its q and of the keys and values it sees, by one order: keys in
/// blocks of kKeyBlock from position 0; scores are chains of fused multiply-adds over S; each block's maximum
/// and sum (16 lanes from the block's first key, then the lane tree) join the running ones; the output is one
/// chain of fused multiply-adds over keys in order, rescaled between blocks. Keys that a row does not see do
/// not enter, not even times 0; those that dropout drops enter times +0, and only the output, not the
/// maxima, sums and lse. So neither tiles, threads, T nor the rows beside it change its bits.
template <class T>
struct Attention {
  const T* qkv = nullptr;
  T* out = nullptr;
  T* lse = nullptr;
  std::int64_t batch = 0, sequence = 0, heads = 0, head_dim = 0;
  T scale = 1;  ///< more than 0
  bool causal = true;
  AttentionDropout<T> dropout = {};
};

/// The backward pass: d_qkv, laid out as qkv and overwritten, from d_out (as out) and what the forward pass
/// left. In a head, every element of d_qkv is one chain of fused multiply-adds over positions in order, from
/// +0.
template <class T>
struct AttentionGradient {
  const T* qkv = nullptr;
  const T* out = nullptr;
  const T* lse = nullptr;
  const T* d_out = nullptr;
  T* d_qkv = nullptr;
  std::int64_t batch = 0, sequence = 0, heads = 0, head_dim = 0;
  T scale = 1;  ///< more than 0
  bool causal = true;
  AttentionDropout<T> dropout = {};
};

/// Keys in a block: part of the contract, since maxima and sums join block by block.
inline constexpr std::int64_t kKeyBlock = 64;

/// Tiles of the one stage: (sequence, head, block of queries) forward, (sequence, head) backward. They write
/// apart from each other, share no scratch and may run in any order on any threads.
template <class T>
std::int64_t attention_tiles(const Attention<T>& call);
template <class T>
std::int64_t attention_tiles(const AttentionGradient<T>& call);

/// Bytes of scratch for each thread, aligned to 64: independent of T forward, linear in T backward.
template <class T>
std::size_t attention_thread_bytes(const Attention<T>& call);
template <class T>
std::size_t attention_thread_bytes(const AttentionGradient<T>& call);

/// Runs one tile.
template <class T>
void attention_tile(const Attention<T>& call, std::int64_t tile, void* scratch);
template <class T>
void attention_tile(const AttentionGradient<T>& call, std::int64_t tile, void* scratch);

}  // namespace graingrad::cpu
