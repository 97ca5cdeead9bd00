// Decoding in bf16.
#define ELEMENT bf16
#include "attention_decode_entries.cuh"
