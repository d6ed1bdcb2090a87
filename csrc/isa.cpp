#include "isa.hpp"

#ifdef SIGHTLINE_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace sightline {

extern const Kernels generic;
#ifdef SIGHTLINE_X86
extern const Kernels avx2, avx512, avx512_bf16;
#endif
#ifdef SIGHTLINE_AMX
extern const Kernels amx_bf16;

namespace {

// Whether the processor has matrix registers for bf16, and Linux lets this process use them, which it does once asked.
bool matrices_granted() {
    constexpr unsigned kBf16 = 1u << 22, kTiles = 1u << 24;
    constexpr long kAsk = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kBf16) == 0 || (d & kTiles) == 0) return false;
    return syscall(SYS_arch_prctl, kAsk, kTileData) == 0;
}

}  // namespace
#endif

namespace {

// The tables that run here, best first.
std::vector<Kernels> found() {
    std::vector<Kernels> all;
#ifdef SIGHTLINE_X86
    __builtin_cpu_init();
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const bool pairs = wide && __builtin_cpu_supports("avx512bf16");
#ifdef SIGHTLINE_AMX
    if (pairs && matrices_granted()) all.push_back(amx_bf16);
#endif
    if (pairs) all.push_back(avx512_bf16);
    if (wide) all.push_back(avx512);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) all.push_back(avx2);
#endif
    all.push_back(generic);
    return all;
}

#ifdef SIGHTLINE_X86
// Intel multiplies wide vectors in the two pipes that do everything else to them too: exponentials gain nothing beside
// products. It multiplies pairs of bf16 half as fast as floats: few rows are better off as those. So are floats that
// matrix registers do not multiply, in registers and tiles that are not shaped for those.
void suit_intel(std::vector<Kernels>& tables) {
    for (Kernels& k : tables) {
        k.overlaps = false;
        if (k.name != avx512.name) continue;
        for (Kernels* better = tables.data(); better < &k; ++better) better->vectors = &k;
    }
}
#endif

}  // namespace

const std::vector<const Kernels*>& usable() {
    static std::vector<Kernels> tables = found();
    static const std::vector<const Kernels*> all = [] {
#ifdef SIGHTLINE_X86
        if (__builtin_cpu_is("intel")) suit_intel(tables);
#endif
        std::vector<const Kernels*> some;
        for (const Kernels& k : tables) some.push_back(&k);
        return some;
    }();
    return all;
}

}  // namespace sightline
