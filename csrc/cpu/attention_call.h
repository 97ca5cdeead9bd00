// What the tiles of one forward call share, and the buffers a thread works in.
#pragma once

#include "cpu/attention_amx_tile.h"
#include "cpu/attention_tile.h"
#include "cpu/pieces.h"
#include "cpu/program_vm.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kMostKeptBytes = 1 << 20;  // of turned values: half of the second cache

// What all tiles of a call share: which body they run, and the factors between raw products and logits in units of log2.
struct Call {
  const AttentionParams& p;
  const ProgramPlan* score;     // makes logits of scores, or null
  const ProgramPlan* addend;    // of a program that only adds to scores, or null
  bool plain;                   // logits are raw products times a factor
  bool added;                   // or that and a term known before
  bool sparse;                  // key rows may be absent
  int64_t element_bytes;        // of q, k, v and out
  int words, dim_v;             // 32-bit words of a query or key row
  float query_scale;            // folded into the packed queries
  float score_scale;            // raw products to what a score program sees
  float to_log2;                // raw products, or a program's values, to logits
  float cap, cap_rate;          // logit = cap tanh(raw * cap_rate / (2 log2 e)); 0 = no cap, or the program's pass applies it
  bool copy_keys, copy_values;  // to f32, pairs, or neighbouring elements
  bool tiles;                   // products are the tile unit's, which copies what it must itself
  int64_t kept_values;          // of tiles: blocks of kTileDepth keys whose turned values a thread keeps for the next query tiles

  Call(const AttentionParams& params, const ProgramPlan* program, Words kind)
      : p(params), score(program && program->addend ? nullptr : program), addend(program ? program->addend : nullptr) {
    element_bytes = p.dtype == DType::F32 ? 4 : 2;
    sparse = p.page_table || p.kv_rows;
    const bool pairs = kind != Words::F32;
    tiles = kind == Words::Bf16Tile;
    // Masked raw products are -inf before a pair's factor is applied, so that must not turn them around.
    added = p.softcap <= 0 && !p.mask.data && !score && (!pairs || p.scale > 0);
    plain = added && !p.bias.data && !addend;
    words = static_cast<int>(pairs ? (p.dim + 1) / 2 : p.dim);
    if (tiles) words = static_cast<int>(round_up(words, kTileWords));
    dim_v = static_cast<int>(p.dim_v);
    // bf16 queries stay as they are, so the dot instruction sees exact inputs and the scale is applied to f32 scores.
    query_scale = pairs ? 1.f : score ? p.scale : p.scale * kLog2E;
    score_scale = pairs ? p.scale : 1.f;
    to_log2 = score ? kLog2E : pairs ? p.scale * kLog2E : 1.f;
    cap = score || p.softcap <= 0 ? 0.f : p.softcap * kLog2E;
    cap_rate = cap > 0 ? 2 * to_log2 / p.softcap : 0.f;
    const bool narrow = element_bytes == 2;
    copy_keys = !tiles && (p.k.sd != 1 || (narrow && !pairs) || (pairs && p.dim % 2));
    copy_values = p.v.sd != 1 || narrow;
    const bool many_tiles = p.len_q * (p.heads_q / p.heads_kv) >= 4 * kTileQueries;
    kept_values =
        tiles && !sparse && many_tiles ? min64(ceil_div(p.len_kv, kTileDepth), kMostKeptBytes / (kTileDepth * 2 * turned_dim())) : 0;
  }

  // Values of a key in turned blocks.
  int64_t turned_dim() const { return round_up(p.dim_v, kTileDepth); }

  const ProgramPlan* program() const { return addend ? addend : score; }
  // One row of terms stands for a whole tile.
  bool by_distance() const { return addend && addend->by_distance && !p.bias.data; }
};

constexpr int kDistanceRows = 64;  // rows of a tile's lanes evaluated at once; 128 keys by the narrowest tile need 33

// A block of keys whose values are turned: the first key's row, and their number.
struct TurnedKeys {
  const void* row;
  int count;
};

// Buffers of one thread, cut from its scratch memory.
struct Workspace {
  float *queries, *scores, *weights, *out, *maximum, *sum, *keys, *values, *rows, *bias, *program;  // bias: terms known before the scores
  uint64_t* visible;  // lanes that see each key of a block, by mask tensor and absent rows
  TurnedKeys* kept;   // of the values behind those of one block

  Workspace(const Call& c, Pieces& pieces) {
    auto take = [&](int64_t count) { return pieces.take(count); };
    queries = take(int64_t{c.words} * kTileQueries);
    scores = take(int64_t{kTileKeys + kRowsOfTile} * kTileQueries);
    weights = take(int64_t{kTileKeys / 2 + kRowsOfTile} * kTileQueries);
    out = take(round_up(c.dim_v, kLanes) * kTileQueries);
    maximum = take(kTileQueries);
    sum = take(kTileQueries);
    keys = take(c.copy_keys ? int64_t{kTileKeys} * c.words : c.tiles ? int64_t{kTileRows} * c.words : 0);
    values = take(c.tiles         ? (kTileKeys + c.kept_values * kTileDepth) / 2 * c.turned_dim()
                  : c.copy_values ? int64_t{kTileKeys} * c.dim_v
                                  : 0);
    kept = pieces.take<TurnedKeys>(c.kept_values);
    rows = take(kLanes);
    bias = take(c.by_distance()             ? int64_t{kDistanceRows} * kTileQueries
                : c.p.bias.data || c.addend ? int64_t{kTileKeys} * kTileQueries
                                            : 0);
    visible = pieces.take<uint64_t>(c.p.mask.data || c.sparse ? kTileKeys : 0);
    program = take(c.program() ? static_cast<int64_t>(ProgramVm::scratch_bytes(*c.program(), kTileQueries) / 4) + 16 : 0);
  }
};

}  // namespace
}  // namespace fovea::cpu
