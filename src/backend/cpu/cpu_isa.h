/*
 * cpu_isa.h - for files that are compiled once per instruction set, with M1_ISA set to
 * avx512vnni, avx512, avx2 or portable: brings that set's vector vocabulary (vf_* for
 * floats, vi_* for bytes and integers), and names its table of kernels.
 */
#ifndef M1_BACKEND_CPU_CPU_ISA_H
#define M1_BACKEND_CPU_CPU_ISA_H

#include <stdbool.h>
#include <stdint.h>

#define avx512vnni 1
#define avx512 2
#define avx2 3
#define portable 4
#if M1_ISA == avx512vnni || M1_ISA == avx512
#include "backend/cpu/simd_avx512.h"
#elif M1_ISA == avx2
#include "backend/cpu/simd_avx2.h"
#elif M1_ISA == portable
#include "backend/cpu/simd_portable.h"
#else
#error "M1_ISA must be avx512vnni, avx512, avx2 or portable"
#endif
#undef avx512vnni
#undef avx512
#undef avx2
#undef portable

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

#define M1B_PASTE_(prefix, isa) prefix##_##isa
#define M1B_PASTE(prefix, isa) M1B_PASTE_(prefix, isa)
/* prefix_avx2 and so on */
#define M1B_TABLE(prefix) M1B_PASTE(prefix, M1_ISA)

#endif
