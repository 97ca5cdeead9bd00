// Neighborhood attention forward for bf16.
#define ELEMENT bf16
#include "neighborhood_forward_entries.cuh"
