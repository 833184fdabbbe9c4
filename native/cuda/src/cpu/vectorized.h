// Functions marked so are compiled for several instruction sets; the best one of the processor is chosen when the library is loaded.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define SECATEUR_VECTORIZED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
// Sanitizers cannot instrument the selection, which runs before they are set up.
#define SECATEUR_VECTORIZED
#endif
