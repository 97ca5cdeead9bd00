// Attention backward for f16.
#define ELEMENT f16
#include "attention_backward_entries.cuh"
