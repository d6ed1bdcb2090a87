// The second implicit matrix, R = P o (dO v^T): the strip's weights times the products of output gradients and values.
#pragma once

#include "../memory.hpp"
#include "pack.hpp"

namespace sightline {
namespace {

INLINE long field_width(const Request& r) { return r.field.width; }

struct FieldScratch {
    float* gradients;  // [kRows, width]
    float* products;   // [kRows, kTile]
    char* values;      // [kTile, width], where values are packed tile by tile

    FieldScratch(const Request& r, Carver& at) {
        gradients = at.take<float>(static_cast<size_t>(kRows * field_width(r)));
        products = at.take<float>(kRows * kTile);
        values = at.take<char>(static_cast<size_t>(4 * kTile * field_width(r)));
    }
};

size_t field_scratch_bytes(const Request& r) {
    Carver carver(nullptr);
    FieldScratch{r, carver};
    return carver.used();
}

// Values of one head, packed as keys are: products with them are scores of a kind.
size_t field_bytes(const Request& r) {
    return r.field.part == Part::none ? 0 : sizeof(float) * static_cast<size_t>(up(r.dims.m, kPanel) * field_width(r));
}

void pack_field(const Request& r, int batch, int head, int j0, int j1, char* out) {
    const long width = field_width(r);
    pack_across(r.field.v, static_cast<int>(width), false, batch, head, j0, j1,
                out + sizeof(float) * static_cast<size_t>(j0 * width));
}

// e g, or the part of it that was asked for. What is left to weigh it by is not negative, so parts may be taken now.
template <Part kPart>
INLINE void weigh_row(float* e, const float* g, int width) {
    for (int j = 0; j < width; j += kLanes) {
        Floats x = load(e + j) * load(g + j);
        if (kPart == Part::positive) x = larger(x, Floats{});
        if (kPart == Part::absolute) x = larger(x, -x);
        store(e + j, x);
    }
}

// Turn the block's strip of weights into the field's.
void weigh(const Block& b) {
    const Request& r = *b.request;
    const long width = field_width(r);
    Carver carver(b.scratch);
    const FieldScratch at(r, carver);
    for (int i = 0; i < b.rows; ++i)
        read_floats(r.field.grad_out, r.field.grad_out.at(b.batch, b.row[i].head, b.row[i].query),
                    r.field.grad_out.stride[3], static_cast<int>(width), at.gradients + i * width);
    for (int j0 = b.j0 / kTile * kTile; j0 < b.j1; j0 += kTile) {
        const int keys = static_cast<int>(up(b.j1 - j0 < kTile ? b.j1 - j0 : kTile, kPanel));
        const float* values =
            reinterpret_cast<const float*>(b.field ? b.field : at.values) + (b.field ? j0 * width : 0);
        if (!b.field)
            pack_across(r.field.v, static_cast<int>(width), false, b.batch, b.key_head, j0,
                        j0 + keys < r.dims.m ? j0 + keys : r.dims.m, at.values);
        multiply(b.rows, at.gradients, width, values, width, width, keys, at.products, kTile);
        float* e = b.strip + static_cast<long>(j0 / kTile) * b.strip_rows * kTile;
        for (int i = 0; i < b.rows; ++i) {
            const float* g = at.products + i * kTile;
            if (r.field.part == Part::positive) weigh_row<Part::positive>(e + i * kTile, g, keys);
            else if (r.field.part == Part::absolute) weigh_row<Part::absolute>(e + i * kTile, g, keys);
            else weigh_row<Part::whole>(e + i * kTile, g, keys);
        }
    }
}

}  // namespace
}  // namespace sightline
