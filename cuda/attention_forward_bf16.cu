// Attention forward for bf16.
#define ELEMENT bf16
#include "attention_forward_entries.cuh"
