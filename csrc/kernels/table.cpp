// Compiled once for every instruction set: SIGHTLINE_TABLE names the table it defines.
#include "backward.hpp"
#include "extent.hpp"
#include "field.hpp"
#include "finish.hpp"
#include "settle.hpp"
#include "sweep.hpp"

namespace sightline {

#define NAMED(x) #x
#define AS_TEXT(x) NAMED(x)

extern const Kernels SIGHTLINE_TABLE;
const Kernels SIGHTLINE_TABLE = {AS_TEXT(SIGHTLINE_TABLE),
                                 kPanel,
                                 kTile,
                                 kBlockRows,
                                 kDirectRows,
                                 kOverlaps,
                                 kMatrices,
                                 largest_magnitude,
                                 scratch_bytes,
                                 state_bytes,
                                 state,
                                 key_bytes,
                                 value_bytes,
                                 pack_some_keys,
                                 pack_some_values,
                                 settle,
                                 merge,
                                 finish,
                                 field_bytes,
                                 pack_field,
                                 weigh,
                                 sweep,
                                 backward_kernels};

}  // namespace sightline
