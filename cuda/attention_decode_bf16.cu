// Decoding in bf16.
#include "attention_decode_mma.cuh"

#define ELEMENT bf16
#include "attention_decode_entries.cuh"
