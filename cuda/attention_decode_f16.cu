// Decoding in f16.
#include "attention_decode_mma.cuh"

#define ELEMENT f16
#include "attention_decode_entries.cuh"
