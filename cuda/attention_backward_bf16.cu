// Attention backward for bf16.
#define ELEMENT bf16
#include "attention_backward_entries.cuh"
