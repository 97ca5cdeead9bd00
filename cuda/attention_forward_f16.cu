// Attention forward for f16.
#define ELEMENT f16
#include "attention_forward_entries.cuh"
