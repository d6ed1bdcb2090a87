#include "isa.hpp"

namespace sightline {

extern const Kernels generic;
#ifdef SIGHTLINE_X86
extern const Kernels avx2, avx512, avx512_bf16;
#endif

const std::vector<const Kernels*>& usable() {
    static const std::vector<const Kernels*> found = [] {
        std::vector<const Kernels*> all;
#ifdef SIGHTLINE_X86
        __builtin_cpu_init();
        const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
        if (wide && __builtin_cpu_supports("avx512bf16")) all.push_back(&avx512_bf16);
        if (wide) all.push_back(&avx512);
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) all.push_back(&avx2);
#endif
        all.push_back(&generic);
        return all;
    }();
    return found;
}

}  // namespace sightline
