// Decoding in f16.
#define ELEMENT f16
#include "attention_decode_entries.cuh"
